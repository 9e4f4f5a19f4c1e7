"""The one verdict parser, vote counting and neutralisation. Pure.

Everything that reads a judge's text comes here: rejection sampling, votes, evaluation, the judge command.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

THINK_OPEN, THINK_CLOSE = "<think>", "</think>"
_RATING = re.compile(r"\[\[\s*(-?\d+(?:\.\d+)?)\s*\]\]")
_LETTER = re.compile(r"\[\[([A-D])\]\]")

# Text of instructions and responses must not be read as a verdict, end its section, or become a control token.
_VERDICT_LIKE = re.compile(r"\[\[(?=\s*(?:[A-Da-d]|-?[0-9]+(?:\.[0-9]+)?)\s*\]\])")
_SECTION_LIKE = re.compile(r"<(?=/?(?:modified_)?(?:instruction|response(?:_[a-d])?)\s*>)", re.IGNORECASE)
_CONTROL_LIKE = re.compile(
    r"<(?=\|[^<>\n]{0,80}\|?>"  # <|im_end|>, <|eot_id|>, <|start_header_id|>
    r"|｜|/?s>|/?think>|/?INST>|/?SYS>|<SYS>|pad>|unk>|bos>|eos>|start_of_turn>|end_of_turn>"
    r"|/?tool_call>|endoftext>|reponame>|filename>|[a-z]+(?:_[a-z]+)+>)",
    re.IGNORECASE,
)
_INST_LIKE = re.compile(r"\[(?=/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS)\])")
WORD_JOINER = "\u2060"  # invisible, zero width: a reader sees the same text, a parser and a tokeniser do not


def neutralise(text: str) -> str:
    """`text` with verdict marks, section marks and control tokens broken by an invisible word joiner.

    It is applied to message contents before any chat template, so that inference and training tokenise the
    same. Applying it twice changes nothing.
    """
    for pattern in (_VERDICT_LIKE, _SECTION_LIKE, _CONTROL_LIKE, _INST_LIKE):
        text = pattern.sub(lambda match: match.group(0) + WORD_JOINER, text)
    return text


def own_text(text: str) -> str | None:
    """What the model says after its reasoning; None when a `<think>` was opened and not closed."""
    if THINK_CLOSE in text:
        text = text.rsplit(THINK_CLOSE, 1)[1]
    return None if THINK_OPEN in text else text


def cut_in_reasoning(text: str, stop: Iterable[str]) -> bool:
    """Whether a stop string ended a text inside its `<think>`: the model was only weighing that verdict."""
    return own_text(text) is None and text.endswith(tuple(stop))


def parse_verdict(text: str, letters: str = "AB") -> str | None:
    """The last `[[A]]`/`[[B]]` of the model's own text; None is *unparsed*, an outcome of its own. A `[[C]]` behind
    it is another verdict (a tie, in some prompts), which was not asked for: then the earlier one was only weighed.
    """
    answer = own_text(text)
    if answer is None:
        return None
    found = _LETTER.findall(answer)
    return found[-1] if found and found[-1] in letters else None


# A mark, and the words that only announce it ("Your final verdict is: **[[A]]**").
_MARKS = re.compile(
    r"(?:\b(?:(?:so|thus|hence|therefore|overall|finally|in conclusion)\W+)?(?:(?:my|your|our|the)\W+)?"
    r"(?:(?:final|overall)\W+)?(?:verdict|answer|judge?ment|decision|choice|conclusion|rating|score)"
    r"(?:\W+(?:is|would be|must be))?\W*)?"
    r"\[\[[^\[\]\n]{0,12}\]\]",
    re.IGNORECASE,
)


def explanation(text: str) -> str:
    """What a judgment says besides its verdict: its own text without the marks, and without the words that only
    announce them; empty where reasoning was cut off.
    """
    return _MARKS.sub(" ", own_text(text) or "").strip()


LOWEST, HIGHEST = 1, 10
SCORES = tuple(str(score) for score in range(LOWEST, HIGHEST + 1))


def parse_score(text: str) -> float | None:
    """The last rating of a pointwise judgment, `[[1]]` to `[[10]]`, decimals too (`[[7.5]]`); None where there is
    none, or where the last is out of that range: an earlier one was only weighed.
    """
    answer = own_text(text)
    if answer is None:
        return None
    found = _RATING.findall(answer)
    rating = float(found[-1]) if found else 0.0
    return rating if LOWEST <= rating <= HIGHEST else None


def first_win(scores: Sequence[tuple[float | None, float | None]]) -> int | None:
    """The first sample in which the first side's score exceeds the second's; a missing score never wins."""
    for index, (first, second) in enumerate(scores):
        if first is not None and second is not None and first > second:
            return index
    return None


@dataclass(frozen=True)
class Count:
    """Votes of one order. `drawn` < `k` when voting stopped early: the counts are partial, the verdict is not."""

    a: int = 0
    b: int = 0
    unparsed: int = 0

    @property
    def drawn(self) -> int:
        return self.a + self.b + self.unparsed

    @property
    def lead(self) -> int:
        return abs(self.a - self.b)

    @property
    def verdict(self) -> str | None:
        """Majority of the parsed votes; a tie, or none parsed, is None."""
        if self.a == self.b:
            return None
        return "A" if self.a > self.b else "B"


def count(votes: Iterable[str | None]) -> Count:
    """Tally verdicts; anything but A and B is unparsed."""
    tally = {"A": 0, "B": 0, None: 0}
    for vote in votes:
        tally[vote if vote in ("A", "B") else None] += 1
    return Count(tally["A"], tally["B"], tally[None])


def votes_needed(so_far: Count, k: int, early_stop: bool = True) -> int:
    """How many more votes to draw now; 0 when the verdict of all `k` is settled.

    Settled means that the lead exceeds the votes outstanding. The number returned is the smallest that could
    settle it, so drawing them at once wastes none: after m more for the leader, lead + m > outstanding - m.
    """
    outstanding = k - so_far.drawn
    if not early_stop:
        return outstanding
    if so_far.lead > outstanding:
        return 0
    return min(outstanding, (outstanding - so_far.lead) // 2 + 1)


def both_orders(ab: str | None, ba: str | None) -> tuple[str | None, bool]:
    """(verdict about response_a / response_b, inconsistent) from the two positional verdicts.

    In order `ba` response_b is shown first, so a positional A there means response_b.
    """
    turned = {"A": "B", "B": "A"}.get(ba) if ba is not None else None
    if ab is not None and ab == turned:
        return ab, False
    return None, ab is not None and turned is not None
