"""Parsers of verdicts by name, for evaluation: the project's one, and those of published scorers. Pure.

Judges are trained, and judge, by `parse_verdict` (`last`). A figure to compare with a published table can be read as
that table's own scorer reads judgments; a judge that names both responses on its way gets another verdict from each.
All of these read the whole judgment, so that evaluation with one of them does not stop at a verdict.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Literal

from ray_app.base.verdict import parse_verdict

ParserName = Literal["last", "rewardbench", "self_taught", "judgebench"]
LAST: ParserName = "last"
_ARENA_HARD = re.compile(r"\[\[([AB<>=]+)\]\]")
_DECISIONS = {"A>B": "A", "A>>B": "A", "B>A": "B", "B>>A": "B"}


def rewardbench(text: str, letters: str = "AB") -> str | None:
    """RewardBench's, of both versions (`process_judgement` in rewardbench/generative.py and generative_v2.py): A where
    [[A]] occurs anywhere, reasoning included, else B where [[B]] does, and so on.
    """
    return next((letter for letter in letters if f"[[{letter}]]" in text), None)


def self_taught(text: str, letters: str = "AB") -> str | None:
    """That of the Self-Taught Evaluators release, by which its training judgments are labelled (`parse_judgement` in
    projects/self_taught_evaluator/src/utils.py of facebookresearch/RAM): none where both [[A]] and [[B]] occur; a [[C]]
    is a tie, so none. Its RewardBench scores are read by RewardBench's parser.
    """
    found = [letter for letter in letters if f"[[{letter}]]" in text]
    return found[0] if len(found) == 1 else None


def judgebench(text: str, letters: str = "AB") -> str | None:
    """That of JudgeBench's Arena-Hard judge (`ArenaHard.get_score` in utils/judges.py): marks as [[A>B]], [[B>>A]] and
    [[A=B]], which must all be one and the same. A tie, and any other mark, is right for no label: none. JudgeBench asks
    a second time where there is no mark; here that is unparsed.
    """
    found = set(_ARENA_HARD.findall(text))
    return _DECISIONS.get(found.pop()) if len(found) == 1 else None


PARSERS: dict[ParserName, Callable[[str, str], str | None]] = {
    LAST: parse_verdict,
    "rewardbench": rewardbench,
    "self_taught": self_taught,
    "judgebench": judgebench,
}
OF_LETTERS: frozenset[ParserName] = frozenset({LAST, "rewardbench"})  # those that read more letters than two
