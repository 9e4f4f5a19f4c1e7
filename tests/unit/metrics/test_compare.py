"""Two runs on the same rows: the difference, its interval, and McNemar's exact test against scipy."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from making import outcome, outcomes
from scipy import stats

from ray_app.errors import InputError
from ray_app.metrics.bootstrap import Ratio, estimates
from ray_app.metrics.compare import compare, mcnemar
from ray_app.metrics.outcome import Outcome


def rows(right: str) -> list[Outcome]:
    """One row a character: 1 right in both orders, 0 wrong in both, h right in one."""
    verdicts = {"1": ("A", "B"), "0": ("B", "A"), "h": ("A", "A")}
    return [outcome(f"r{i}", "A", *verdicts[c]) for i, c in enumerate(right)]


def test_hand_computed() -> None:
    found = compare(rows("0011h0"), rows("1111hh"))
    assert found["accuracy_a"]["value"] == pytest.approx(2.5 / 6)
    assert found["accuracy_b"]["value"] == pytest.approx(5 / 6)
    assert found["difference"]["value"] == pytest.approx(2.5 / 6)
    assert found["mcnemar"] == {"a_better": 0, "b_better": 3, "p_value": pytest.approx(0.25)}
    assert found["n"] == found["clusters"] == 6


def test_mcnemar_is_the_exact_binomial_test() -> None:
    assert mcnemar(9, 21)["p_value"] == pytest.approx(2 * stats.binom.cdf(9, 30, 0.5))
    assert mcnemar(0, 0)["p_value"] == 1


def test_a_clear_difference_is_significant_and_none_is_not() -> None:
    worse, better = rows("01" * 40), rows("1" * 80)
    found = compare(worse, better, seed=3)
    assert found["significant"]
    assert found["difference"]["low"] > 0.3
    back = compare(better, worse, seed=3)
    assert back["difference"]["value"] == -found["difference"]["value"]
    assert not compare(better, better)["significant"]
    assert not compare(rows("01" * 10), rows("10" * 10))["significant"]


@pytest.mark.parametrize(
    ("before", "after"), [("0" * 4 + "1" * 8, "1" * 12), ("00", "11"), ("0" * 4 + "1" * 28, "1" * 32)]
)
def test_a_few_better_rows_are_not_significant(before: str, after: str) -> None:
    """Four of four coins fall alike once in eight times."""
    found = compare(rows(before), rows(after))
    assert not found["significant"]


def test_an_interval_alone_is_not_significant() -> None:
    """Five of five clusters are better: the interval lies above 0, but five coins fall alike once in sixteen times."""
    found = compare(rows("00000"), rows("11111"))
    assert found["difference"]["low"] > 0
    assert found["mcnemar"]["p_value"] == pytest.approx(2 / 2**5)
    assert not found["significant"]
    back = compare(rows("11111"), rows("00000"))
    assert back["difference"]["high"] < 0
    assert not back["significant"]


def test_more_clusters_alone_are_not_significant() -> None:
    """Nine instructions of one row are better and one of nine is worse: of the rows as many are worse as are better."""
    groups = [f"g{i}" for i in range(9)] + ["large"] * 9
    runs = (rows("0" * 9 + "1" * 9), rows("1" * 9 + "0" * 9))
    before, after = ([dataclasses.replace(r, group=g) for r, g in zip(run, groups, strict=True)] for run in runs)
    for found in (compare(before, after), compare(after, before)):
        assert found["mcnemar"]["p_value"] == pytest.approx(2 * stats.binom.cdf(1, 10, 0.5))
        assert found["mcnemar"]["p_value"] < 0.05
        assert found["difference"]["low"] < 0 < found["difference"]["high"]
        assert not found["significant"]


def test_rows_of_one_instruction_are_one_case() -> None:
    """Forty rows of two instructions are two coins, not forty."""
    worse, better = rows("0" * 40), rows("1" * 40)
    of_two = [[dataclasses.replace(row, group=f"g{i % 2}") for i, row in enumerate(run)] for run in (worse, better)]
    found = compare(*of_two)
    assert found["mcnemar"] == {"a_better": 0, "b_better": 2, "p_value": pytest.approx(0.5)}
    assert not found["significant"]
    assert compare(worse, better)["significant"]


def test_runs_that_never_differ_are_not_equal_for_certain() -> None:
    found = compare(rows("01" * 12), rows("01" * 12))["difference"]
    assert found["value"] == 0
    assert found["low"] == -found["high"]
    # Bonett and Price: n + 2 clusters, of which one is better and one worse.
    assert found["high"] == pytest.approx(1.96 * (2 / 26) ** 0.5 / 26**0.5, abs=1e-3)


def test_a_difference_may_be_of_either_sign_where_all_of_its_rows_are_better() -> None:
    found = compare(rows("0" * 24), rows("1" + "0" * 23))["difference"]
    assert found["value"] == pytest.approx(1 / 24)
    assert found["low"] < 0 < found["high"]


def test_the_interval_of_a_difference_covers_it() -> None:
    """Simulated: few rows, of which few differ."""
    rng = np.random.default_rng(3)
    for n, up, down in ((6, 0.3, 0.1), (12, 0.2, 0.05), (24, 0.1, 0.02), (60, 0.05, 0.05)):
        covered = 0
        for _ in range(400):
            drawn = rng.choice([1.0, -1.0, 0.0], n, p=[up, down, 1 - up - down])
            found = estimates({"d": Ratio.mean(drawn.tolist(), signed=True)}, [str(i) for i in range(n)], 0, 200)["d"]
            covered += found["low"] <= up - down <= found["high"]
        assert covered / 400 >= 0.93


def test_rows_are_joined_by_id_not_by_place() -> None:
    one, two = rows("0101"), rows("0101")
    assert compare(one, two[::-1])["difference"]["value"] == 0


def test_different_rows_are_an_error_with_counts() -> None:
    with pytest.raises(InputError, match="2 ids only in the first, 0 only in the second"):
        compare(rows("0101"), rows("01"))
    other = [dataclasses.replace(row, label="B") for row in rows("01")]
    with pytest.raises(InputError, match="2 rows differ in the label"):
        compare(rows("01"), other)
    with pytest.raises(InputError, match="no rows"):
        compare([], [])


@given(outcomes())
def test_a_run_does_not_beat_itself(run: list[Outcome]) -> None:
    found = compare(run, run, resamples=50)
    assert found["difference"]["value"] == 0
    assert found["mcnemar"]["p_value"] == 1
    assert not found["significant"]
