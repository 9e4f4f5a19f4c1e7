"""Position-consistent accuracy: right in both orders; and how often two parsed orders contradict."""

from __future__ import annotations

from collections.abc import Sequence

from ray_app.metrics.bootstrap import Ratio
from ray_app.metrics.outcome import Outcome


def position_consistent_accuracy(outcomes: Sequence[Outcome]) -> Ratio:
    """Over rows judged in both orders."""
    both = [len(outcome.orders) == 2 for outcome in outcomes]
    return Ratio.of(
        [float(b and outcome.score() == 1) for b, outcome in zip(both, outcomes, strict=True)],
        [float(b) for b in both],
    )


def inconsistent_rate(outcomes: Sequence[Outcome]) -> Ratio:
    """Share of the rows judged in both orders whose two verdicts name different responses."""
    both = [len(outcome.orders) == 2 for outcome in outcomes]
    contradicts = [
        # The same position in both orders is two different responses.
        outcome.verdict_ab is not None and outcome.verdict_ab == outcome.verdict_ba
        for outcome in outcomes
    ]
    return Ratio.of([float(b and c) for b, c in zip(both, contradicts, strict=True)], [float(b) for b in both])
