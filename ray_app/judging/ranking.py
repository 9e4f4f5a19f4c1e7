"""Ranking the responses to one prompt, from what a judge says of pairs of them. Pure.

A pairwise judge compares every two of n responses, n·(n-1)/2 pairs in both orders: a win is worth 1 point, a pair that
is not settled ½ to each (the Copeland score, here as a mean). A pointwise judge scores every response once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ray_app.judging.protocol import PairProtocol

Couple = tuple[int, int]


@dataclass(frozen=True)
class Ranking:
    """The responses to one prompt by their indices, best first. `scores` stand in the order of the responses: the share
    of comparisons won, or the mean score of a pointwise judge; None for a response of which nothing could be read.
    """

    id: str
    order: tuple[int, ...]
    scores: tuple[float | None, ...]
    quarantined: str | None = None  # why the row could not be judged

    @property
    def best(self) -> int | None:
        """The first of the order: the best of n. None for a row that could not be ranked at all."""
        return self.order[0] if self.order else None

    @property
    def tied(self) -> tuple[int, ...]:
        """The other responses with the score of the best: it comes first only because it stood first."""
        return tuple(index for index in self.order[1:] if self.scores[index] == self.scores[self.order[0]])

    def record(self) -> dict[str, Any]:
        """One line of a ranking file."""
        found = {"id": self.id, "best": self.best, "order": list(self.order), "scores": list(self.scores)}
        reason = {"quarantined": self.quarantined} if self.quarantined else {}
        return found | {"tied": list(self.tied)} | reason


def couples(count: int, protocol: PairProtocol) -> list[Couple]:
    """Which of `count` responses are put to the judge together: all couples, or as few as show each of them once."""
    if protocol.shows_both:
        return [(first, second) for first in range(count) for second in range(first + 1, count)]
    last = [(count - 1, 0)] if count % 2 else []
    return [(first, first + 1) for first in range(0, count - 1, 2)] + last


def ranking(identity: str, count: int, records: Mapping[Couple, Mapping[str, Any]], protocol: PairProtocol) -> Ranking:
    """The ranking of `count` responses from the verdict records of their couples. Ties keep the responses' order."""
    points: list[list[float]] = [[] for _ in range(count)]
    for couple, record in records.items():
        for index, value in zip(couple, protocol.points(record), strict=True):
            if value is not None:
                points[index].append(value)
    scores = tuple(sum(values) / len(values) if values else None for values in points)
    lost = next((record["quarantined"] for record in records.values() if "quarantined" in record), None)
    return Ranking(identity, ordered(scores), scores, lost)


def ordered(scores: Sequence[float | None]) -> tuple[int, ...]:
    """Indices by score, best first; those without one last."""
    known = {index: score for index, score in enumerate(scores) if score is not None}
    unknown = [index for index in range(len(scores)) if index not in known]
    return (*sorted(known, key=lambda index: -known[index]), *unknown)
