"""Clustered bootstrap: hand-computed ratios, and properties that any such interval has."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from ray_app.metrics.bootstrap import Ratio, cluster_sums, divide, estimates, intervals

ROWS = st.lists(st.tuples(st.floats(0, 1), st.sampled_from("abcdefg")), min_size=1, max_size=30)


def one(values: list[float], groups: list[str], seed: int = 0, resamples: int = 300) -> dict[str, float]:
    return estimates({"x": Ratio.mean(values)}, groups, seed, resamples)["x"]  # type: ignore[return-value]


def test_a_ratio_is_the_quotient_of_sums() -> None:
    ratio = Ratio.of([1, 0, 3], [2, 0, 2])
    found = estimates({"x": ratio}, ["a", "b", "c"], 0)["x"]
    assert (found["value"], found["n"]) == (1.0, 2)


def test_rows_of_a_cluster_are_summed() -> None:
    sums = cluster_sums(np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]), ["b", "a", "b"])
    assert sums.tolist() == [[3.0, 4.0], [6.0, 8.0]]


def test_repeating_rows_inside_clusters_does_not_narrow_the_interval() -> None:
    values, groups = [0.0, 1.0, 1.0, 0.0, 1.0], list("abcde")
    once = one(values, groups)
    tenfold = one(values * 10, groups * 10)
    assert tenfold["low"] <= once["low"]
    assert once["high"] <= tenfold["high"]
    as_if_independent = one(values * 10, [str(i) for i in range(50)])
    assert as_if_independent["high"] - as_if_independent["low"] < once["high"] - once["low"]


def test_it_agrees_with_the_normal_interval_on_many_independent_rows() -> None:
    rng = np.random.default_rng(1)
    values = rng.integers(0, 2, 4000).astype(float)
    found = one(values.tolist(), [str(i) for i in range(4000)], resamples=2000)
    low, high = stats.norm.interval(0.95, values.mean(), values.std() / np.sqrt(4000))
    assert found["low"] == pytest.approx(low, abs=0.002)
    assert found["high"] == pytest.approx(high, abs=0.002)


def test_large_sets_are_resampled_in_parts() -> None:
    n = 50_000
    values = np.arange(n) % 2
    found = one(values.tolist(), [str(i) for i in range(n)], resamples=200)
    assert found["low"] < 0.5 < found["high"]
    assert found["high"] - found["low"] < 0.02


def test_one_cluster_has_no_interval_and_json_has_no_nan() -> None:
    found = one([0.0, 1.0], ["a", "a"])
    assert found == {"value": 0.5, "n": 2, "low": None, "high": None}
    undefined = estimates({"x": Ratio.of([0, 0], [0, 0])}, ["a", "b"], 0)
    assert json.dumps(undefined, allow_nan=False) == '{"x": {"value": null, "n": 0, "low": null, "high": null}}'


def test_resamples_that_miss_a_subset_are_left_out() -> None:
    columns = np.array([[1.0, 1.0], [0.0, 0.0], [0.0, 0.0]])
    value, low, high = intervals(columns, ["a", "b", "c"], lambda s: divide(s[:, :1], s[:, 1:]), 0, 200)
    assert (value[0], low[0], high[0]) == (1.0, 1.0, 1.0)


@given(ROWS, st.integers(0, 2**63 - 1))
def test_the_interval_of_a_share_holds_it_and_lies_between_0_and_1(rows: list[tuple[float, str]], seed: int) -> None:
    values, groups = [v for v, _ in rows], [g for _, g in rows]
    found = one(values, groups, seed, 50)
    assert found == one(values, groups, seed, 50)
    assert min(values) - 1e-9 <= found["value"] <= max(values) + 1e-9
    if len(set(groups)) > 1:
        assert 0 <= found["low"] <= found["value"] + 1e-9
        assert found["value"] - 1e-9 <= found["high"] <= 1


@given(ROWS, st.integers(0, 2**63 - 1))
def test_what_is_no_share_is_resampled(rows: list[tuple[float, str]], seed: int) -> None:
    values, groups = [1 + v for v, _ in rows], [g for _, g in rows]
    found = one(values, groups, seed, 50)
    assert found == one(values, groups, seed, 50)
    if len(set(groups)) > 1:
        assert min(values) - 1e-9 <= found["low"] <= found["high"] <= max(values) + 1e-9


@given(st.permutations(list(enumerate([0.0, 1.0, 0.5, 1.0, 0.0, 0.5]))))
def test_the_order_of_rows_does_not_matter(rows: list[tuple[int, float]]) -> None:
    groups = "aabbcc"
    expected = one([0.0, 1.0, 0.5, 1.0, 0.0, 0.5], list(groups))
    assert one([v for _, v in rows], [groups[i] for i, _ in rows]) == expected
