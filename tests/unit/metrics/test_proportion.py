"""Intervals of shares: coverage by simulation, the formula by an independent computation, and edges."""

from __future__ import annotations

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
    assert (found["low"], found["high"]) == pytest.approx((middle - half, middle + half))


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
