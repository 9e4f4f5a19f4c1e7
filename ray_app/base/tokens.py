"""What a model's own tokenizer says of texts: control tokens that no text may become, and where reasoning ends. Pure.

A list of spellings is never complete: Gemma 4 ends a turn with `<turn|>`, Qwen 3 opens a tool's answer with an added
token that is not even marked as special. The tokenizer knows them all.
"""

from __future__ import annotations

import functools
import inspect
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ray_app.base.reasoning import MARKS
from ray_app.base.verdict import THINK_CLOSE, THINK_OPEN

WORD_JOINER = "\u2060"  # invisible, zero width: a reader sees the same text, a tokenizer does not
# Elements of HTML are ordinary text, although some vocabularies (Gemma's) have tokens for them.
HTML = re.compile(
    r"</?(?:a|b|blockquote|br|caption|code|d[dlt]|div|em|h[1-6r]|i|img|li|ol|p|pre|s|span|strong|su[bp]|table|tbody|t[dhr]|"
    r"tfoot|thead|u|ul)/?>"
)
Split = Callable[[Sequence[int]], "tuple[list[int], list[int] | None] | None"]


def control_tokens(tokenizer: Any) -> frozenset[str]:
    """Spellings which the tokenizer turns into tokens of their own that are no text: its special tokens, and other
    added ones in brackets (`<tool_call>`). Empty where a tokenizer never makes them from text (Mistral's own).
    """
    added: Mapping[int, Any] = getattr(tokenizer, "added_tokens_decoder", None) or {}
    return frozenset(token.content for token in added.values() if _is_control(token.content, token.special))


def _is_control(content: str, special: bool) -> bool:
    if len(content) < 2 or not content.strip():
        return False  # runs of spaces and line breaks are text
    bracketed = all(unicodedata.category(sign)[0] in "PS" for sign in (content[0], content[-1]))
    return special or (bracketed and not HTML.fullmatch(content))


def broken(text: str, control: frozenset[str]) -> str:
    """`text` with an invisible word joiner behind the first sign of every control token in it. Twice is as once."""
    if not control:
        return text
    lengths = _lengths(control)
    parts, start = [], 0
    for index, sign in enumerate(text):
        if any(text[index : index + length] in control for length in lengths.get(sign, ())):
            parts += [text[start : index + 1], WORD_JOINER]
            start = index + 1
    return "".join([*parts, text[start:]])


@functools.lru_cache(maxsize=16)
def _lengths(control: frozenset[str]) -> dict[str, tuple[int, ...]]:
    """Lengths of the tokens that begin with a sign."""
    found: dict[str, set[int]] = {}
    for token in control:
        found.setdefault(token[0], set()).add(len(token))
    return {sign: tuple(sorted(lengths)) for sign, lengths in found.items()}


def decode(tokenizer: Any, ids: Iterable[int]) -> str:
    """Text as vLLM's own detokeniser gives it: no special tokens, no tidied spaces.

    A Hugging Face tokenizer may tidy them ("a ." to "a.") unless it is told not to; vLLM's own ones (Mistral's
    among them) never do, and take no such argument.
    """
    parameters = inspect.signature(tokenizer.decode).parameters.values()
    takes = any(p.name == "clean_up_tokenization_spaces" or p.kind is p.VAR_KEYWORD for p in parameters)
    options = {"clean_up_tokenization_spaces": False} if takes else {}
    text: str = tokenizer.decode(list(ids), skip_special_tokens=True, **options)
    return text


def drawn_text(text: str, tokenizer: Any, ids: Sequence[int], split: Split | None, opened: str = "") -> str:
    """What a model said, with its reasoning between `<think>` and `</think>`, whatever its own marks are: some are
    special tokens, which no text shows, and reasoning that was cut off would be read as an answer.

    `text` is what was decoded of `ids`, `opened` what the template wrote in front of it. `split` gives (reasoning,
    answer) of ids, the answer None where reasoning was not ended; it gives None where there was none.
    """
    parts = None if split is None or THINK_OPEN in text or THINK_CLOSE in text else split(ids)
    if parts is None:
        return opened + text
    reasoning, answer = parts
    if answer is None:
        return (opened or THINK_OPEN) + text
    thought = decode(tokenizer, reasoning)
    # A stop string may end `text` earlier than its tokens do.
    said = text[len(thought) :] if text.startswith(thought) else decode(tokenizer, answer)
    return f"{opened or THINK_OPEN}{thought}{THINK_CLOSE}{said}"


def same_text(text: str, decoded: str) -> bool:
    """Whether `text` is what was decoded, but for marks of reasoning that it shows."""
    return text.replace(THINK_OPEN, "").replace(THINK_CLOSE, "") == decoded.replace(THINK_OPEN, "").replace(
        THINK_CLOSE, ""
    )


def splits_by_marks(tokenizer: Any) -> Split | None:
    """How drawn ids are split by the tokenizer's own marks of reasoning; None where it has none that text hides."""
    vocabulary: Mapping[str, int] = {
        token.content: index for index, token in (getattr(tokenizer, "added_tokens_decoder", None) or {}).items()
    }
    for opens, closes in MARKS:
        if opens in vocabulary and closes in vocabulary and not decode(tokenizer, [vocabulary[closes]]).strip():
            return functools.partial(_split, vocabulary[opens], vocabulary[closes])
    return None


def _split(opens: int, closes: int, ids: Sequence[int]) -> tuple[list[int], list[int] | None] | None:
    """(reasoning, answer) by the last mark of each kind."""
    backwards = list(ids)[::-1]
    last_open = len(ids) - backwards.index(opens) if opens in backwards else 0
    last_close = len(ids) - backwards.index(closes) if closes in backwards else 0
    if not last_open and not last_close:
        return None
    return (list(ids), None) if last_open > last_close else (list(ids[: last_close - 1]), list(ids[last_close:]))
