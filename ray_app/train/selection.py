"""Which candidate becomes M(i): best validation accuracy, then the most even positions, then the earliest. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Score:
    """Validation of one candidate. `first_position_rate`: share of parsed verdicts for the response shown first."""

    step: int
    accuracy: float
    first_position_rate: float
    n: int

    @property
    def imbalance(self) -> float:
        return abs(self.first_position_rate - 0.5)


def best(scores: Sequence[Score]) -> Score:
    """The selected candidate. Raises ValueError when there is none."""
    if not scores:
        raise ValueError("no candidate was judged")
    return min(scores, key=lambda score: (-score.accuracy, score.imbalance, score.step))


def should_stop(scores: Sequence[Score], patience: int) -> bool:
    """Whether the last `patience` candidates (by step) are all less accurate than the best before them."""
    if patience < 1 or len(scores) <= patience:
        return False
    ordered = sorted(scores, key=lambda score: score.step)
    record = max(score.accuracy for score in ordered[:-patience])
    return all(score.accuracy < record for score in ordered[-patience:])


def boundaries(total: int, every: int) -> list[int]:
    """Steps at which a segment of training ends: every so many, and the last."""
    marks = list(range(every, total, every)) if every else []
    return [*marks, total]
