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

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

CONFIDENCE = 0.95
SCARCE = 15  # clusters with anything wrong (or anything right) that a variance between clusters needs to be trusted
VERDICTS = 2  # of a row at most, one an order: its score then varies as that of two rows would


def interval(hits: Array, rows: Array) -> tuple[float, float]:
    """(low, high) of Σ hits / Σ rows, both (clusters,), 0 <= hits <= rows. NaN with fewer than two clusters."""
    hits, rows = hits[rows > 0], rows[rows > 0]
    if len(rows) < 2:
        return np.nan, np.nan
    share = float(hits.sum() / rows.sum())
    n = effective_rows(hits, rows, share)
    z2 = NormalDist().inv_cdf((1 + CONFIDENCE) / 2) ** 2
    middle = (share * n + z2 / 2) / (n + z2)
    half = np.sqrt(z2 * middle * (1 - middle) / (n + z2))
    return float(max(middle - half, 0.0)), float(min(middle + half, 1.0))


def widened(shares: Array, low: Array, high: Array, drawn: Array, clusters: Array) -> tuple[Array, Array]:
    """Bootstrapped bounds (M,) of composites of shares (a mean of subsets), at least as wide as Agresti and Coull's on
    the n that their variance over `drawn` (B, M) stands for: `clusters` (M,) where there is no variance at all.
    """
    z2 = NormalDist().inv_cdf((1 + CONFIDENCE) / 2) ** 2
    variance = np.nanvar(drawn, axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        n = np.where(variance > 0, shares * (1 - shares) / variance, clusters)
    middle = (shares * n + z2 / 2) / (n + z2)
    half = np.sqrt(z2 * middle * (1 - middle) / (n + z2))
    return np.minimum(low, np.maximum(middle - half, 0)), np.maximum(high, np.minimum(middle + half, 1))


def effective_rows(hits: Array, rows: Array, share: float) -> float:
    """The number of independent rows that tell as much as these clusters do."""
    from scipy.special import stdtrit  # a tenth of a second, which every command would pay at its start

    clusters, total = len(rows), float(rows.sum())
    by_sizes = total**2 / float((rows**2).sum())  # if the rows of a cluster were all alike
    variance = float(((hits - share * rows) ** 2).sum()) / total**2 * clusters / (clusters - 1)
    found = share * (1 - share) / variance if variance > 0 else by_sizes
    found = min(found, VERDICTS * total)
    if total > clusters:
        level = (1 + CONFIDENCE) / 2
        found *= (NormalDist().inv_cdf(level) / float(stdtrit(clusters - 1, level))) ** 2
    if min(np.count_nonzero(hits > 0), np.count_nonzero(hits < rows)) < SCARCE:
        found = min(found, by_sizes)
    return found
