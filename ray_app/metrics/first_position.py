"""First-position rate: share of the parsed verdicts that go to the response shown first."""

from __future__ import annotations

from collections.abc import Sequence

from ray_app.metrics.bootstrap import Ratio
from ray_app.metrics.outcome import ANY, Outcome


def first_position_rate(outcomes: Sequence[Outcome]) -> Ratio:
    """Over parsed verdicts whose order is known."""
    first, parsed = [], []
    for outcome in outcomes:
        known = [v for order, v, _ in outcome.verdicts() if v is not None and order != ANY]
        first.append(float(known.count("A")))
        parsed.append(float(len(known)))
    return Ratio.of(first, parsed)
