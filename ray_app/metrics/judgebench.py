"""JudgeBench's scorings (arXiv 2410.12784, section 4): net agreement by its published rule; right in both orders."""

from __future__ import annotations

from collections.abc import Sequence

from ray_app.metrics.bootstrap import Ratio
from ray_app.metrics.outcome import Outcome


def net_agreement(outcomes: Sequence[Outcome]) -> Ratio:
    """Right when the orders, +1 for gold, -1 for the other response and 0 for none, sum to more than 0.

    So one right verdict and one unparsed is right, one right and one wrong is not. With one order it is
    accuracy.
    """
    return Ratio.mean([float(_net(outcome) > 0) for outcome in outcomes])


def _net(outcome: Outcome) -> int:
    total = 0
    for order, verdict, _ in outcome.verdicts():
        if verdict is not None and outcome.label is not None:
            total += 1 if verdict == outcome.gold(order) else -1
    return total
