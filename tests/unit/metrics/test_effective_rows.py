"""The number of independent rows that clusters stand for, computed again from its definition."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from ray_app.metrics.bootstrap import Array
from ray_app.metrics.proportion import effective_rows


def clusters(count: int, share: float, seed: int) -> tuple[Array, Array]:
    """(hits, rows) of clusters of one to six rows, each with a share of its own."""
    rng = np.random.default_rng(seed)
    rows = rng.integers(1, 7, count)
    own = rng.beta(2 * share, 2 * (1 - share), count)
    return rng.binomial(rows, own).astype(np.float64), rows.astype(np.float64)


@pytest.mark.parametrize(("count", "share", "seed"), [(60, 0.5, 0), (60, 0.7, 1), (200, 0.8, 2), (400, 0.9, 3)])
def test_clusters_stand_for_the_rows_that_have_their_variance(count: int, share: float, seed: int) -> None:
    """Kish: n rows have the variance p (1 - p) / n. That of a ratio is known from the residuals of its clusters and of
    one more that is half right, and from so few of them that Student's t stands for the normal quantile.
    """
    hits, rows = clusters(count, share, seed)
    size = (rows**3).sum() / (rows**2).sum()
    total = rows.sum() + size
    p = (hits.sum() + size / 2) / total
    halves = ((size * (1 - p)) ** 2 + (size * p) ** 2) / 2
    variance = (np.sum((hits - p * rows) ** 2) * count / (count - 1) + halves) / total**2
    student = stats.norm.ppf(0.975) / stats.t.ppf(0.975, total**2 / ((rows**2).sum() + size**2) - 1)
    found = effective_rows(hits, rows, float(hits.sum() / rows.sum()))
    assert found == pytest.approx(p * (1 - p) / variance * rows.sum() / total * student**2)
    assert found < rows.sum(), "rows of these clusters are alike"


def test_few_clusters_with_anything_wrong_are_taken_for_fewer_rows_than_their_variance_makes_them() -> None:
    """Of so few the variance may come out too small by chance: it is not trusted to make them more rows than that."""
    rows = np.array([3.0, 3, 3, 3, 1, 1, 1, 1])
    hits = rows - np.array([1.0, 0, 1, 0, 0, 0, 1, 0])
    p, count = hits.sum() / rows.sum(), len(rows)
    student = stats.norm.ppf(0.975) / stats.t.ppf(0.975, count - 1)
    by_variance = p * (1 - p) / (count * np.var(hits - p * rows, ddof=1) / rows.sum() ** 2) * student**2
    assert effective_rows(hits, rows, float(p)) < 0.8 * by_variance


def test_a_row_counts_as_its_two_verdicts_at_most() -> None:
    """Rows that are all right in one order of two have no variance to speak of: they are no endless number of rows."""
    hits = np.array([0.5] * 38 + [0.0, 1.0])
    assert effective_rows(hits, np.ones(40), 0.5) == 80
