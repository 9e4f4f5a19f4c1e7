"""Unparsed rate: share of the verdicts that are none; with votes also of the single votes."""

from __future__ import annotations

from collections.abc import Sequence

from ray_app.metrics.bootstrap import Ratio
from ray_app.metrics.outcome import Outcome


def unparsed_rate(outcomes: Sequence[Outcome]) -> Ratio:
    """Mean over rows of the share of their orders. With votes a tied order has no verdict and counts here."""
    return Ratio.mean([sum(v is None for _, v, _ in o.verdicts()) / len(o.orders) for o in outcomes])


def unparsed_vote_rate(outcomes: Sequence[Outcome]) -> Ratio:
    """Over single votes drawn."""
    drawn = [[votes for _, _, votes in outcome.verdicts() if votes is not None] for outcome in outcomes]
    return Ratio.of(
        [float(sum(votes.unparsed for votes in row)) for row in drawn],
        [float(sum(votes.drawn for votes in row)) for row in drawn],
    )
