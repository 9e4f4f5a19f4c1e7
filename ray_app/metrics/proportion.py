"""Intervals of shares (accuracy, rate of unparsed verdicts): Agresti and Coull's on the effective number of rows. Pure.

The percentile bootstrap is too narrow where there are few clusters or a share is near 0 or 1: of rows that are all
right every resample is all right too, and its interval has no width. Agresti & Coull (The American Statistician 52,
1998) keep their coverage there. They assume independent rows, so their n is the effective one: the n whose independent
rows would have the variance that is seen between clusters (Kish, Survey Sampling, 1965), with Student's t for the few
clusters that this variance is known from (Korn & Graubard, Survey Methodology 24, 1998).
A variance between clusters misleads where it rests on few of them: near 0 and 1, where few are wrong, and where a few
are much larger than the rest. So one more cluster, half right and half wrong, is counted in it: see `effective_rows`.
Coverage is simulated in tests/unit/metrics/test_proportion.py: at least 0.93 from six rows up, with clusters of equal
and of unequal sizes.
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
    """The number of independent rows that tell as much as these clusters do.

    Their variance is that of these clusters and of a prior one: half a cluster that is all right and half a cluster
    that is all wrong, of the size that weighs in a variance (Σ rows³ / Σ rows²). As Agresti and Coull's added rows do
    for the share, it pulls the variance towards the cautious one, of clusters whose rows are all alike, and matters
    less the more clusters there are. The degrees of freedom are those of unequal clusters, (Σ rows)² / Σ rows² less
    one, with the prior one among them. Of n independent rows about n - 1 are left, as their sample variance has it,
    and about n where all are right.
    """
    from scipy.special import stdtrit  # a tenth of a second, which every command would pay at its start

    clusters, total, squares = len(rows), float(rows.sum()), float((rows**2).sum())
    prior = float((rows**3).sum()) / squares
    padded = total + prior
    middle = (share * total + prior / 2) / padded
    spread = float(((hits - middle * rows) ** 2).sum()) * clusters / (clusters - 1)
    spread += prior**2 * ((1 - middle) ** 2 + middle**2) / 2
    found = min(middle * (1 - middle) * padded / spread, VERDICTS) * total
    if total > clusters:
        freedom = padded**2 / (squares + prior**2) - 1  # at least 1: prior >= squares / total
        found *= (Z / float(stdtrit(freedom, (1 + CONFIDENCE) / 2))) ** 2
    return found
