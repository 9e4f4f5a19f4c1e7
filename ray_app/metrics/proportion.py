"""Intervals of shares (accuracy, rate of unparsed verdicts): Agresti and Coull's on the effective number of rows. Pure.

The percentile bootstrap is too narrow where there are few clusters or a share is near 0 or 1: of rows that are all
right every resample is all right too, and its interval has no width. Agresti & Coull (The American Statistician 52,
1998) keep their coverage there. They assume independent rows, so their n is the effective one: the n whose independent
rows would have the variance that is seen between clusters (Kish, Survey Sampling, 1965), with Student's t for the few
clusters that this variance is known from (Korn & Graubard, Survey Methodology 24, 1998).
Coverage is simulated in tests/unit/metrics/test_proportion.py: at least 0.93 from six rows up, clustered or not.
"""

from __future__ import annotations

from statistics import NormalDist
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Share = TypeVar("Share", float, Array)

CONFIDENCE = 0.95
Z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
SCARCE = 15  # clusters with anything wrong (or anything right) that a variance between clusters needs to be trusted
VERDICTS = 2  # of a row at most, one an order: its score then varies as that of two rows would


def interval(hits: Array, rows: Array) -> tuple[float, float]:
    """(low, high) of Σ hits / Σ rows, both (clusters,), 0 <= hits <= rows. NaN with fewer than two clusters."""
    hits, rows = hits[rows > 0], rows[rows > 0]
    if len(rows) < 2:
        return np.nan, np.nan
    share = float(hits.sum() / rows.sum())
    n = effective_rows(hits, rows, share)
    middle = _middle(share, n)
    half = np.sqrt(Z**2 * middle * (1 - middle) / (n + Z**2))
    return float(max(middle - half, 0.0)), float(min(middle + half, 1.0))


def _middle(share: Share, n: Share) -> Share:
    """Agresti and Coull's middle: two of four more rows are right, nearly."""
    return (share * n + Z**2 / 2) / (n + Z**2)


def widened(shares: Array, low: Array, high: Array, drawn: Array, clusters: Array) -> tuple[Array, Array]:
    """Bootstrapped bounds (M,) of composites of shares (a mean of subsets), at least as wide as Agresti and Coull's on
    the n that their variance over `drawn` (B, M) stands for: `clusters` (M,) where there is no variance at all.
    """
    variance = np.nanvar(drawn, axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        n = np.where(variance > 0, shares * (1 - shares) / variance, clusters)
    middle = _middle(shares, n)
    half = np.sqrt(Z**2 * middle * (1 - middle) / (n + Z**2))
    return np.minimum(low, np.maximum(middle - half, 0)), np.maximum(high, np.minimum(middle + half, 1))


def of_difference(low: float, high: float, by_cluster: Array) -> tuple[float, float]:
    """The bootstrapped interval of a paired difference, at least as wide as Bonett and Price's (Journal of Educational
    and Behavioral Statistics 37, 2012) on the clusters: one is added to those that are better and to those that are
    worse, so that two which never differ are not said to be equal for certain. `by_cluster` (clusters,): the mean
    difference in each, -1 to 1.
    """
    n = len(by_cluster) + 2.0
    up, down = by_cluster.clip(min=0).sum() + 1.0, (-by_cluster).clip(min=0).sum() + 1.0
    middle = (up - down) / n
    half = Z * float(np.sqrt((up + down) / n - middle**2) / np.sqrt(n))
    return max(min(low, float(middle - half)), -1.0), min(max(high, float(middle + half)), 1.0)


def composite(value: Array, low: Array, high: Array, hits: Array, rows: Array, weights: Array) -> tuple[Array, Array]:
    """Bounds (M,) of composites of shares, at least as wide as their cells' own uncertainty makes them.

    `hits`, `rows` (clusters, C): of every cell, 0 <= hits <= rows; `weights` (M, C): of the cells in each figure, which
    sum to 1. Where a small cell is all right every resample of it is too, and a bootstrap then knows it for certain. So
    each cell has the variance of Agresti and Coull's middle on its effective rows, and cells are taken as independent.
    """
    known = np.array([_variance(hits[:, cell], rows[:, cell]) for cell in range(hits.shape[1])])
    half = Z * np.sqrt((weights**2) @ known)
    return np.fmin(low, np.maximum(value - half, 0)), np.fmax(high, np.minimum(value + half, 1))


def _variance(hits: Array, rows: Array) -> float:
    """Of a cell's share; 0 where it has no rows, for then no figure with it is defined."""
    hits, rows = hits[rows > 0], rows[rows > 0]
    if not len(rows):
        return 0.0
    share = float(hits.sum() / rows.sum())
    n = effective_rows(hits, rows, share) if len(rows) > 1 else 1.0
    middle = _middle(share, n)
    return middle * (1 - middle) / n


def effective_rows(hits: Array, rows: Array, share: float) -> float:
    """The number of independent rows that tell as much as these clusters do."""
    from scipy.special import stdtrit  # a tenth of a second, which every command would pay at its start

    clusters, total = len(rows), float(rows.sum())
    by_sizes = total**2 / float((rows**2).sum())  # if the rows of a cluster were all alike
    variance = float(((hits - share * rows) ** 2).sum()) / total**2 * clusters / (clusters - 1)
    found = share * (1 - share) / variance if variance > 0 else by_sizes
    found = min(found, VERDICTS * total)
    if total > clusters:
        found *= (Z / float(stdtrit(clusters - 1, (1 + CONFIDENCE) / 2))) ** 2
    if min(np.count_nonzero(hits > 0), np.count_nonzero(hits < rows)) < SCARCE:
        found = min(found, by_sizes)
    return found
