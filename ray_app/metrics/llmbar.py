"""LLMBar's averages (arXiv 2310.07641, table 2): means of the four adversarial subsets and of all five."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ray_app.benchmarks.llmbar import SUBSETS
from ray_app.metrics.accuracy import accuracy
from ray_app.metrics.bootstrap import RESAMPLES, Array, Estimate, divide, estimate, intervals
from ray_app.metrics.outcome import Outcome


def llmbar(outcomes: Sequence[Outcome], seed: int, resamples: int = RESAMPLES) -> dict[str, Estimate]:
    """`adversarial` and `average`: unweighted means over subsets; undefined while one of them is absent."""
    rows = [o for o in outcomes if o.subset in SUBSETS]
    ratio, k = accuracy(rows), len(SUBSETS)
    columns = np.zeros((len(rows), 2 * k))
    for i, outcome in enumerate(rows):
        at = SUBSETS.index(outcome.subset)
        columns[i, at], columns[i, k + at] = ratio.numerator[i], ratio.denominator[i]

    def statistic(sums: Array) -> Array:
        scores = divide(sums[:, :k], sums[:, k:])
        return np.stack([scores[:, 1:].mean(axis=1), scores.mean(axis=1)], axis=1)

    groups = [len({o.group for o in rows if o.subset in subsets}) for subsets in (SUBSETS[1:], SUBSETS)]
    value, low, high = intervals(
        columns, [o.group for o in rows], statistic, seed, resamples, shares=True, clusters=groups
    )
    adversarial = sum(o.subset != SUBSETS[0] for o in rows)
    return {
        "adversarial": estimate(value[0], adversarial, low[0], high[0]),
        "average": estimate(value[1], len(rows), low[1], high[1]),
    }
