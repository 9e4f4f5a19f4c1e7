"""Figures with 95 % intervals, rows clustered by instruction. Pure, seeded.

Shares get theirs from `proportion`; what is no share (differences, composites) from a bootstrap that resamples whole
clusters. Rows of one instruction are not independent, so clusters are drawn with replacement, as many as there are, and
a statistic is recomputed from their summed columns: percentile intervals (Efron & Tibshirani, 1993, chapter 13).
Clusters are sorted by name first, so the order of the rows never matters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from ray_app.metrics import proportion
from ray_app.metrics.proportion import CONFIDENCE

Array = NDArray[np.float64]
Statistic = Callable[[Array], Array]

RESAMPLES = 2000
_CELLS = 4_000_000  # of the counts matrix held at once: 32 MB


class Estimate(TypedDict):
    """A figure, the rows it rests on, and its interval (None with fewer than two clusters, or undefined)."""

    value: float | None
    n: int
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Ratio:
    """A figure that is Σ numerator / Σ denominator over rows; a row with denominator 0 does not enter. `signed`: a
    difference, which is no share even where all of its rows happen to lie between 0 and 1.
    """

    numerator: Array
    denominator: Array
    signed: bool = False

    @staticmethod
    def of(numerator: Sequence[float], denominator: Sequence[float]) -> Ratio:
        return Ratio(np.asarray(numerator, dtype=np.float64), np.asarray(denominator, dtype=np.float64))

    @staticmethod
    def mean(values: Sequence[float], signed: bool = False) -> Ratio:
        """The plain mean over rows."""
        ratio = Ratio.of(values, [1.0] * len(values))
        return replace(ratio, signed=signed)

    @property
    def is_share(self) -> bool:
        """Whether every row counts between nothing and all of what it could."""
        return not self.signed and bool(np.all((self.numerator >= 0) & (self.numerator <= self.denominator)))


def estimates(
    ratios: Mapping[str, Ratio], groups: Sequence[str], seed: int, resamples: int = RESAMPLES
) -> dict[str, Estimate]:
    """Each ratio with its interval; those that are no shares from the same resamples. `groups`: a cluster key a row."""
    columns = [c for r in ratios.values() for c in (r.numerator, r.denominator)]
    matrix = np.stack(columns, axis=1) if columns else np.empty((len(groups), 0))
    sums = cluster_sums(matrix, groups)
    values = divide(*sums.sum(axis=0).reshape(-1, 2).T)
    low, high = np.full_like(values, np.nan), np.full_like(values, np.nan)
    others = [i for i, ratio in enumerate(ratios.values()) if not ratio.is_share]
    for i in set(range(len(values))) - set(others):
        low[i], high[i] = proportion.interval(sums[:, 2 * i], sums[:, 2 * i + 1])
    if others:
        chosen = [column for i in others for column in (2 * i, 2 * i + 1)]
        _, low[others], high[others] = intervals(matrix[:, chosen], groups, _ratios, seed, resamples)
    for i, ratio in enumerate(ratios.values()):
        if ratio.signed and not np.isnan(low[i]):
            there = sums[:, 2 * i + 1] > 0
            by_cluster = sums[there, 2 * i] / sums[there, 2 * i + 1]
            low[i], high[i] = proportion.of_difference(low[i], high[i], by_cluster)
    return {
        name: estimate(values[i], int(np.count_nonzero(ratio.denominator)), low[i], high[i])
        for i, (name, ratio) in enumerate(ratios.items())
    }


def _ratios(sums: Array) -> Array:
    return divide(sums[:, 0::2], sums[:, 1::2])


def intervals(
    columns: Array,
    groups: Sequence[str],
    statistic: Statistic,
    seed: int,
    resamples: int = RESAMPLES,
    *,
    shares: bool = False,
    clusters: Sequence[int] | None = None,
    cells: Array | None = None,
) -> tuple[Array, Array, Array]:
    """(value, low, high) of the outputs of `statistic`, which maps column sums (B, K) to figures (B, M); `shares`: all
    figures lie between 0 and 1, and near these a bootstrap alone is too narrow; `clusters`: how many each rests on,
    where that is not all; `cells` (M, C): the figures are means of C shares with these weights, and the first 2 C
    columns are the numerators and the denominators of these.

    Resamples in which a figure is undefined (no row of a subset was drawn) are left out of its interval.
    """
    sums = cluster_sums(columns, groups)
    value = statistic(sums.sum(axis=0, keepdims=True))[0]
    if len(sums) < 2:
        nothing = np.full_like(value, np.nan)
        return value, nothing, nothing
    drawn = np.concatenate([statistic(part) for part in _resampled(sums, seed, resamples)])
    tail = (1 - CONFIDENCE) / 2
    defined = ~np.isnan(drawn).all(axis=0)
    low, high = np.full_like(value, np.nan), np.full_like(value, np.nan)
    if defined.any():
        low[defined], high[defined] = np.nanquantile(drawn[:, defined], [tail, 1 - tail], axis=0)
        if shares:
            bounds = (value[defined], low[defined], high[defined], drawn[:, defined])
            resting_on = np.broadcast_to(np.asarray(clusters or len(sums), dtype=np.float64), value.shape)
            low[defined], high[defined] = proportion.widened(*bounds, resting_on[defined])
        if cells is not None:
            k = cells.shape[1]
            parts = (sums[:, :k], sums[:, k : 2 * k], cells[defined])
            low[defined], high[defined] = proportion.composite(value[defined], low[defined], high[defined], *parts)
    return value, low, high


def cluster_sums(columns: Array, groups: Sequence[str]) -> Array:
    """(clusters, K) sums of `columns` (rows, K), clusters in sorted order."""
    names, index = np.unique(np.asarray(groups, dtype=object).astype(str), return_inverse=True)
    sums = np.zeros((len(names), columns.shape[1]))
    np.add.at(sums, index, columns)
    return sums


def divide(numerator: Array, denominator: Array) -> Array:
    """Elementwise quotient, NaN where the denominator is 0."""
    out = np.full(np.broadcast(numerator, denominator).shape, np.nan)
    np.divide(numerator, denominator, out=out, where=denominator != 0)
    return out


def estimate(value: float, n: int, low: float, high: float) -> Estimate:
    """JSON has no NaN: undefined figures are None."""
    return Estimate(value=_number(value), n=n, low=_number(low), high=_number(high))


def _resampled(sums: Array, seed: int, resamples: int) -> Iterator[Array]:
    rng = np.random.default_rng(seed)
    clusters = len(sums)
    chunk = max(1, _CELLS // clusters)
    for start in range(0, resamples, chunk):
        counts = np.empty((min(chunk, resamples - start), clusters))
        for row in counts:
            row[:] = np.bincount(rng.integers(0, clusters, clusters, dtype=np.int32), minlength=clusters)
        drawn: Array = counts @ sums
        yield drawn


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
