"""The tokens of a judge's answer, where its text alone would not give them: as drawn, or piece by piece. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from ray_app.base.tokens import added_tokens, decode, drawn_text, marks_of
from ray_app.base.verdict import THINK_CLOSE, THINK_OPEN

ANCHOR = "."  # tokenizers that put a space before a text put it before this


class RowFault(Exception):
    """A row that cannot be trained on: `reason` for the quarantine, `detail` for the reader."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail


def as_drawn(tokenizer: Any, text: str, opened: str, drawn: Sequence[int] | None) -> list[int] | None:
    """The drawn ids, without what ended them; None unless this tokenizer reads them as the text (white space in front
    aside, which decoders treat differently). `opened`: what the template wrote of the answer.

    Raises RowFault `reasoning_marks` where the text shows reasoning whose marks this tokenizer does not have.
    """
    ids = without_end(tokenizer, drawn or ())
    if not ids or max(ids) >= len(tokenizer):
        return None
    plain, marks = decode(tokenizer, ids), marks_of(tokenizer)
    read = drawn_text(plain, tokenizer, ids, marks, opened)
    if text.removeprefix(opened).lstrip() == read.removeprefix(opened).lstrip():
        return ids
    if marks is None and any(
        mark in text.removeprefix(opened) and mark not in plain for mark in (THINK_OPEN, THINK_CLOSE)
    ):
        raise RowFault("reasoning_marks", "its reasoning has marks that the seed's tokenizer does not have")
    return None


def without_end(tokenizer: Any, ids: Sequence[int]) -> list[int]:
    """Drawn ids without the special tokens that ended them: the template ends the turn in its own way."""
    special, kept = added_tokens(tokenizer).special, list(ids)
    while kept and (kept[-1] in special or kept[-1] == tokenizer.eos_token_id):
        kept.pop()
    return kept


def needs_spelling(tokenizer: Any, text: str) -> bool:
    """Whether a template would make other tokens of a text: it quotes a special token, shows reasoning whose marks the
    model has in another form, or begins with white space, which templates cut off.
    """
    added = added_tokens(tokenizer)
    quoted = any(token.strip() and token in text for token in map(added.spelling.__getitem__, added.special))
    reasoned = (THINK_OPEN in text or THINK_CLOSE in text) and marks_of(tokenizer) is not None
    return quoted or reasoned or text != text.lstrip()


def spelled(tokenizer: Any, text: str) -> list[int]:
    """The tokens of a text in which nothing becomes a control token but the marks of its own reasoning."""
    marks, known = marks_of(tokenizer), added_tokens(tokenizer).ids
    own: dict[str, tuple[int, ...]] = {}
    if marks is not None:
        own = {THINK_OPEN: (marks.opens,), THINK_CLOSE: marks.closes}
    elif THINK_OPEN in known and THINK_CLOSE in known:
        own = {mark: (known[mark],) for mark in (THINK_OPEN, THINK_CLOSE)}
    pieces = re.split(f"({THINK_OPEN}|{THINK_CLOSE})", text) if own else [text]
    return [index for piece in pieces if piece for index in own.get(piece) or _plain(tokenizer, piece)]


def _plain(tokenizer: Any, text: str) -> list[int]:
    """Tokens of a text in the middle of another."""
    options = {"add_special_tokens": False, "split_special_tokens": True}
    front = list(tokenizer(ANCHOR, **options).input_ids)
    whole = list(tokenizer(ANCHOR + text, **options).input_ids)
    return whole[len(front) :] if whole[: len(front)] == front else list(tokenizer(text, **options).input_ids)
