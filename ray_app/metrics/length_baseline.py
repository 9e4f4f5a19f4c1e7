"""Length baseline: always the longer response (characters); two of equal length score ½.

Whether a judge is better than that is a question of the same rows: `beyond_longer` pairs them, so that it has an
interval of its own. Two intervals side by side, or one and a bare figure, would not tell.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ray_app.metrics.bootstrap import Ratio
from ray_app.metrics.outcome import Outcome


def length_baseline(outcomes: Sequence[Outcome]) -> Ratio:
    """Over rows with a gold label."""
    labelled = [outcome.label in ("A", "B") for outcome in outcomes]
    values = [_score(gold_gap(o)) if known else 0.0 for o, known in zip(outcomes, labelled, strict=True)]
    return Ratio.of(values, [float(known) for known in labelled])


def beyond_longer(accuracy: Ratio, outcomes: Sequence[Outcome]) -> Ratio:
    """By how much a judge's accuracy on these rows is above the baseline's: -1 to 1. `accuracy`: a mean over rows."""
    longer = length_baseline(outcomes)
    known = longer.denominator > 0
    apart = np.where(known, accuracy.numerator - longer.numerator, 0.0)
    return Ratio(apart, known.astype(np.float64), signed=True)


def length_counts(outcomes: Sequence[Outcome]) -> dict[str, int]:
    """Rows whose gold response is longer, shorter, of equal length: for any other convention on ties."""
    gaps = [gold_gap(o) for o in outcomes if o.label in ("A", "B")]
    return {
        "longer": sum(gap > 0 for gap in gaps),
        "equal": sum(gap == 0 for gap in gaps),
        "shorter": sum(gap < 0 for gap in gaps),
    }


def gold_gap(outcome: Outcome) -> int:
    """Characters by which the gold response is longer than the other."""
    gap = outcome.length_a - outcome.length_b
    return gap if outcome.label == "A" else -gap


def _score(gap: int) -> float:
    return 0.5 if gap == 0 else float(gap > 0)
