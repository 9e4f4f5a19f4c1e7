"""Intervals of shares: coverage by simulation, the formula by an independent computation, and edges."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

from ray_app.metrics.bootstrap import Array, Ratio, divide, estimates, intervals
from ray_app.metrics.proportion import effective_rows, interval

RUNS = 600  # the simulated coverage is known to about one percent


def drawn(rng: np.random.Generator, clusters: int, size: int, share: float, alike: float, verdicts: int) -> np.ndarray:
    """Scores (clusters, size): means of `verdicts` draws, of which some copy their cluster's one (`alike`: the
    correlation of two draws of a cluster).
    """
    own = rng.random((clusters, size, verdicts)) < share
    common = rng.random((clusters, 1, 1)) < share
    copies = rng.random((clusters, size, verdicts)) < np.sqrt(alike)
    return np.where(copies, common, own).mean(axis=2)


@pytest.mark.parametrize("share", [0.5, 0.9, 0.97])
@pytest.mark.parametrize("verdicts", [1, 2])
@pytest.mark.parametrize(
    ("clusters", "size", "alike"),
    [(6, 1, 0), (10, 1, 0), (16, 1, 0), (32, 1, 0), (100, 1, 0), (6, 3, 0.3), (12, 3, 0.5), (20, 5, 0.5), (32, 3, 0.3)],
)
def test_coverage(clusters: int, size: int, alike: float, verdicts: int, share: float) -> None:
    rng = np.random.default_rng(7)
    covered = 0
    for _ in range(RUNS):
        scores = drawn(rng, clusters, size, share, alike, verdicts)
        low, high = interval(scores.sum(axis=1), np.full(clusters, float(size)))
        covered += low <= share <= high
    assert covered / RUNS >= 0.93


def geometric(rng: np.random.Generator, clusters: int) -> Array:
    return rng.geometric(0.2, clusters).astype(float)


def few_big(_: np.random.Generator, clusters: int) -> Array:
    """Three that hold half of the rows among single ones."""
    return np.array([float(clusters // 3)] * 3 + [1.0] * (clusters - 3))


def one_big(_: np.random.Generator, clusters: int) -> Array:
    return np.array([float(clusters // 3 + 2)] + [1.0] * (clusters - 1))


UNEQUAL = [
    *[(geometric, clusters, alike, share) for clusters, alike, share in [(50, 0.3, 0.9), (133, 0.2, 0.97)]],
    *[(geometric, 6, 0.5, share) for share in (0.5, 0.9, 0.97)],
    *[(few_big, 30, 0.5, share) for share in (0.5, 0.9, 0.97)],
    (few_big, 133, 0.8, 0.9),
    (one_big, 12, 0.5, 0.5),
]
FURTHER = [
    pytest.param(sizes, clusters, alike, share, marks=pytest.mark.long)
    for sizes in (geometric, few_big, one_big)
    for clusters in (6, 12, 32, 133, 300)
    for alike in (0.0, 0.2, 0.5, 0.95)
    for share in (0.5, 0.9, 0.97)
]


@pytest.mark.parametrize(("sizes", "clusters", "alike", "share"), [*UNEQUAL, *FURTHER])
def test_coverage_where_clusters_are_unequal(
    sizes: Callable[[np.random.Generator, int], Array], clusters: int, alike: float, share: float
) -> None:
    """Both orders of a pair are rows. A wrong cluster among a few, or a big one, then makes most of the variance: with
    a variance between clusters alone, the first of these covered in 0.91 of the runs, and big ones in as few as 0.75.
    """
    rng, covered, runs = np.random.default_rng(7), 0, 1500
    for _ in range(runs):
        rows = 2 * sizes(rng, clusters)
        copies = rng.binomial(rows.astype(int), np.sqrt(alike))
        hits = copies * (rng.random(clusters) < share) + rng.binomial(rows.astype(int) - copies, share)
        low, high = interval(hits.astype(float), rows)
        covered += low <= share <= high
    assert covered / runs >= 0.93


def test_big_clusters_that_are_all_right_do_not_pass_for_as_many_rows() -> None:
    """Three of 100 rows and 300 of one, all right: three wrong ones more would halve the share."""
    rows = np.array([100.0] * 3 + [1.0] * 300)
    assert interval(rows, rows)[0] < 0.75
    single = np.ones(600)
    assert interval(single, single)[0] > 0.98


def test_independent_rows_give_agresti_and_coulls_interval() -> None:
    """As `statsmodels.stats.proportion.proportion_confint(method="agresti_coull")` has it; here from its formula."""
    hits, n = 26, 40
    scores = np.array([1.0] * hits + [0.0] * (n - hits))
    rows = n - 1  # the sample variance of n rows is that of p(1-p)/(n-1)
    z = stats.norm.ppf(0.975)
    wide = rows + z**2
    middle = (hits / n * rows + z**2 / 2) / wide
    half = z * np.sqrt(middle * (1 - middle) / wide)
    found = estimates({"x": Ratio.mean(scores.tolist())}, [str(i) for i in range(n)], 0)["x"]
    assert (found["low"], found["high"]) == pytest.approx((middle - half, middle + half), abs=2e-4)


def test_all_right_is_not_certain() -> None:
    low, high = interval(np.full(6, 1.0), np.full(6, 1.0))
    assert high == 1
    assert 0.5 < low < 0.7


def test_clusters_of_equal_rows_count_as_one_row_each() -> None:
    scores = np.array([1.0, 0, 1, 1, 0, 1, 1, 1, 0, 1, 1, 0] * 4)
    once = effective_rows(scores, np.ones(48), scores.mean())
    tenfold = effective_rows(scores * 10, np.full(48, 10.0), scores.mean())
    assert tenfold == pytest.approx(once, rel=0.06)  # Student's t with 47 degrees of freedom


def test_rows_that_do_not_enter_change_nothing() -> None:
    hits, rows = np.array([1.0, 0, 2, 1]), np.array([1.0, 1, 2, 2])
    padded = interval(np.append(hits, [0, 0]), np.append(rows, [0, 0]))
    assert padded == interval(hits, rows)


def test_one_cluster_has_no_interval() -> None:
    assert np.isnan(interval(np.array([3.0]), np.array([5.0]))).all()


@pytest.mark.parametrize("share", [0.5, 0.9, 0.97])
@pytest.mark.parametrize("sizes", [(6, 100), (6, 6), (6, 6, 6, 6), (12, 40, 400), (1, 30)])
def test_coverage_of_a_mean_of_cells(sizes: tuple[int, ...], share: float) -> None:
    """A small cell that is all right is no certainty: of (6, 100) a bootstrap alone covered 0.9 in half of the runs."""
    rng, k, runs = np.random.default_rng(5), len(sizes), 300
    cell = np.repeat(np.arange(k), sizes)
    groups = [str(i) for i in range(len(cell))]
    columns = np.zeros((len(cell), 2 * k))
    columns[np.arange(len(cell)), k + cell] = 1
    weights = np.full((1, k), 1 / k)

    def mean(sums: Array) -> Array:
        return divide(sums[:, :k], sums[:, k:]).mean(axis=1, keepdims=True)

    covered = 0
    for _ in range(runs):
        columns[np.arange(len(cell)), cell] = rng.random(len(cell)) < share
        _, low, high = intervals(columns, groups, mean, 0, 200, shares=True, cells=weights)
        covered += low[0] <= share <= high[0]
    assert covered / runs >= 0.93
