"""What a model's own tokenizer says of texts: control tokens that no text may become, and where reasoning ends. Pure.

A list of spellings is never complete: Gemma 4 ends a turn with `<turn|>`, Qwen 3 opens a tool's answer with an added
token that is not even marked as special. The tokenizer knows them all.
"""

from __future__ import annotations

import functools
import inspect
import re
import unicodedata
import weakref
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ray_app.base.reasoning import MARKS
from ray_app.base.verdict import THINK_CLOSE, THINK_OPEN, WORD_JOINER

# Elements of HTML are ordinary text, although some vocabularies (Gemma's) have tokens for them.
HTML = re.compile(
    r"</?(?:a|b|blockquote|br|caption|code|d[dlt]|div|em|h[1-6r]|i|img|li|ol|p|pre|s|span|strong|su[bp]|table|tbody|t[dhr]|"
    r"tfoot|thead|u|ul)/?>"
)


@dataclass(frozen=True)
class Added:
    """The added tokens of a tokenizer: {id: spelling}, and which of them are special."""

    spelling: Mapping[int, str]
    special: frozenset[int]

    @functools.cached_property
    def ids(self) -> dict[str, int]:
        return {token: index for index, token in self.spelling.items()}


_known: weakref.WeakKeyDictionary[Any, tuple[int, Added]] = weakref.WeakKeyDictionary()


def added_tokens(tokenizer: Any) -> Added:
    """Its added tokens; of a tokenizer that tells none (Mistral's own), those it calls special. Read once: the property
    builds thousands of objects for some vocabularies.
    """
    size = len(tokenizer) if hasattr(tokenizer, "__len__") else 0
    known = _known.get(tokenizer) if hasattr(tokenizer, "__weakref__") else None
    if known is None or known[0] != size:
        known = size, _added_tokens(tokenizer)
        if hasattr(tokenizer, "__weakref__"):
            _known[tokenizer] = known
    return known[1]


def _added_tokens(tokenizer: Any) -> Added:
    try:
        found = tokenizer.added_tokens_decoder
    except (AttributeError, NotImplementedError):
        pairs = zip(
            getattr(tokenizer, "all_special_ids", ()), getattr(tokenizer, "all_special_tokens", ()), strict=False
        )
        named = {int(index): str(token) for index, token in pairs}
        return Added(named, frozenset(named))
    return Added(
        {index: token.content for index, token in found.items()},
        frozenset(index for index, token in found.items() if token.special),
    )


def control_tokens(tokenizer: Any) -> frozenset[str]:
    """Spellings which are tokens of their own and no text: special tokens, and other added ones in brackets
    (`<tool_call>`).
    """
    added = added_tokens(tokenizer)
    return frozenset(token for index, token in added.spelling.items() if _is_control(token, index in added.special))


def _is_control(content: str, special: bool) -> bool:
    if len(content) < 2 or not content.strip():
        return False  # runs of spaces and line breaks are text
    bracketed = all(unicodedata.category(sign)[0] in "PS" for sign in (content[0], content[-1]))
    return special or (bracketed and not HTML.fullmatch(content))


def broken(text: str, control: frozenset[str]) -> str:
    """`text` with an invisible word joiner behind the first sign of every control token in it. Twice is as once."""
    if not control:
        return text
    begins, lengths = _shapes(control)
    parts, start = [], 0
    for found in begins.finditer(text):
        index = found.start()
        if any(text[index : index + length] in control for length in lengths[found.group()]):
            parts += [text[start : index + 1], WORD_JOINER]
            start = index + 1
    return "".join([*parts, text[start:]])


@functools.lru_cache(maxsize=16)
def _shapes(control: frozenset[str]) -> tuple[re.Pattern[str], dict[str, tuple[int, ...]]]:
    """A pattern of the signs that tokens begin with, and the lengths of those that begin with each."""
    found: dict[str, set[int]] = {}
    for token in control:
        found.setdefault(token[0], set()).add(len(token))
    signs = "".join(re.escape(sign) for sign in sorted(found))
    return re.compile(f"[{signs}]"), {sign: tuple(sorted(lengths)) for sign, lengths in found.items()}


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


@dataclass(frozen=True)
class Marks:
    """Token ids that open reasoning, and that close it (in a row), where text does not show `<think>` for them."""

    opens: int
    closes: tuple[int, ...]
    shown: str = ""  # what text shows of the closing mark, where it shows it

    def split(self, ids: Sequence[int]) -> tuple[list[int], list[int] | None] | None:
        """(reasoning, answer) by the last mark of each kind; the answer is None where reasoning was not ended. None
        where there is no mark.
        """
        size = len(self.closes)
        starts = [i for i in range(len(ids) - size + 1) if tuple(ids[i : i + size]) == self.closes]
        opened = [i for i, index in enumerate(ids) if index == self.opens]
        last_close, last_open = max(starts, default=-1), max(opened, default=-1)
        if last_close < 0 and last_open < 0:
            return None
        if last_open > last_close and not last_close <= last_open < last_close + size:
            return list(ids), None
        return list(ids[:last_close]), list(ids[last_close + size :])


def marks_of(tokenizer: Any, declared: tuple[str, str] | None = None) -> Marks | None:
    """The tokenizer's own marks of reasoning, or `declared` ones; None where it has none, or text shows `<think>`.

    Harmony (gpt-oss) opens channels; what it says in the last `final` one is its answer.
    """
    vocabulary = added_tokens(tokenizer).ids
    if {"<|channel|>", "<|message|>"} <= vocabulary.keys():
        final = tokenizer.convert_tokens_to_ids("final")
        channel, message = vocabulary["<|channel|>"], vocabulary["<|message|>"]
        return Marks(channel, (channel, int(final), message)) if final is not None else None
    for opens, closes in [declared] if declared else MARKS:
        if opens in vocabulary and closes in vocabulary:
            shown = decode(tokenizer, [vocabulary[closes]]).strip()
            if shown != THINK_CLOSE:
                return Marks(vocabulary[opens], (vocabulary[closes],), shown)
    return None


def drawn_text(text: str, tokenizer: Any, ids: Sequence[int], marks: Marks | None, opened: str = "") -> str:
    """What a model said, with its reasoning between `<think>` and `</think>`, whatever its own marks are: some are
    special tokens, which no text shows, and reasoning that was cut off would be read as an answer.

    `text` is what was decoded of `ids`, `opened` what the template wrote in front of it.
    """
    parts = None if marks is None else marks.split(ids)
    if marks is None or parts is None:
        return opened + text
    reasoning, answer = parts
    thought = _plain(decode(tokenizer, [index for index in reasoning if index != marks.opens]))
    if answer is None:
        return f"{opened or THINK_OPEN}{thought}"
    # A stop string may end `text` earlier than its tokens do: then the answer is cut as `text` was.
    said = decode(tokenizer, answer)
    if marks.shown and marks.shown in text:
        said = text.rpartition(marks.shown)[2]
    elif text.startswith(shown := decode(tokenizer, reasoning)):
        said = text[len(shown) :]
    return f"{opened or THINK_OPEN}{thought}{THINK_CLOSE}{_plain(said)}"


def _plain(text: str) -> str:
    """Text in which `<think>` is only quoted: its marks are others."""
    return text.replace(THINK_OPEN, f"<{WORD_JOINER}think>").replace(THINK_CLOSE, f"<{WORD_JOINER}/think>")
