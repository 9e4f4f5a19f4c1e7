"""Constant baseline: always response_a, whatever it says. It shows how unbalanced a set's labels are."""

from __future__ import annotations

from collections.abc import Sequence

from ray_app.metrics.bootstrap import Ratio
from ray_app.metrics.outcome import Outcome


def constant_baseline(outcomes: Sequence[Outcome]) -> Ratio:
    """Over rows with a gold label."""
    return Ratio.of(
        [float(outcome.label == "A") for outcome in outcomes],
        [float(outcome.label in ("A", "B")) for outcome in outcomes],
    )
