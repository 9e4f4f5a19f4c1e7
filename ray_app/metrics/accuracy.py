"""Accuracy: mean over both orders of (verdict is gold); unparsed is wrong, or ½ as RewardBench counts it."""

from __future__ import annotations

from collections.abc import Sequence

from ray_app.base.verdict import Count
from ray_app.metrics.bootstrap import Ratio
from ray_app.metrics.outcome import Outcome


def accuracy(outcomes: Sequence[Outcome], unparsed: float = 0.0) -> Ratio:
    """Mean over rows of the mean over their orders; an unparsed verdict scores `unparsed` (0 or ½)."""
    scores = []
    for outcome in outcomes:
        verdicts = outcome.verdicts()
        right = sum(_score(v, outcome.gold(order), unparsed) for order, v, _ in verdicts)
        scores.append(right / len(verdicts))
    return Ratio.mean(scores)


def sample_accuracy(outcomes: Sequence[Outcome], unparsed: float = 0.0) -> Ratio | None:
    """Accuracy of one sample, estimated by the mean over all k votes of an order.

    None where votes are lacking or stopped early: shares of votes drawn until settled are biased.
    """
    if any(outcome.partial for outcome in outcomes):
        return None
    scores = []
    for outcome in outcomes:
        shares = [_share(votes, outcome.gold(order), unparsed) for order, _, votes in outcome.verdicts()]
        known = [share for share in shares if share is not None]
        if len(known) < len(shares):
            return None
        scores.append(sum(known) / len(known))
    return Ratio.mean(scores)


def _score(verdict: str | None, gold: str | None, unparsed: float) -> float:
    return unparsed if verdict is None else float(verdict == gold)


def _share(votes: Count | None, gold: str | None, unparsed: float) -> float | None:
    if votes is None:
        return None
    if votes.drawn == 0:  # a quarantined row
        return unparsed
    right = {"A": votes.a, "B": votes.b}.get(gold or "", 0)
    return (right + unparsed * votes.unparsed) / votes.drawn
