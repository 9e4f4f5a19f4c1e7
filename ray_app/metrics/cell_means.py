"""Unweighted means over cells of a benchmark (its subsets, or crosses of them), with intervals from one bootstrap."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence

import numpy as np

from ray_app.metrics.accuracy import accuracy
from ray_app.metrics.bootstrap import RESAMPLES, Array, Estimate, divide, estimate, intervals
from ray_app.metrics.outcome import Outcome


def cell_means(
    outcomes: Sequence[Outcome],
    cell_of: Callable[[Outcome], Hashable],
    figures: Mapping[str, Sequence[Hashable]],
    seed: int,
    resamples: int = RESAMPLES,
) -> dict[str, Estimate]:
    """Each figure is the plain mean of its cells' accuracies; undefined while one of these cells has no row.

    Rows of no cell that a figure names do not enter. `n` is the rows that a figure rests on.
    """
    cells = list(dict.fromkeys(cell for named in figures.values() for cell in named))
    place = {cell: at for at, cell in enumerate(cells)}
    rows = [o for o in outcomes if cell_of(o) in place]
    of_row = [cell_of(o) for o in rows]
    ratio, k = accuracy(rows), len(cells)
    columns = np.zeros((len(rows), 2 * k))
    for i, cell in enumerate(of_row):
        columns[i, place[cell]], columns[i, k + place[cell]] = ratio.numerator[i], ratio.denominator[i]
    wanted = [[place[cell] for cell in named] for named in figures.values()]
    weights = np.array([[(at in some) / len(some) for at in range(k)] for some in wanted])

    def statistic(sums: Array) -> Array:
        scores = divide(sums[:, :k], sums[:, k:])
        return np.stack([scores[:, at].mean(axis=1) for at in wanted], axis=1)

    resting = [[o for o, cell in zip(rows, of_row, strict=True) if cell in named] for named in figures.values()]
    clusters = [len({o.group for o in part}) for part in resting]
    groups = [o.group for o in rows]
    value, low, high = intervals(
        columns, groups, statistic, seed, resamples, shares=True, clusters=clusters, cells=weights
    )
    return {
        name: estimate(value[i], len(part), *((low[i], high[i]) if clusters[i] > 1 else (np.nan, np.nan)))
        for i, (name, part) in enumerate(zip(figures, resting, strict=True))
    }
