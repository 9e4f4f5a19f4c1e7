"""Correlations against their formulas written out, clusters in the intervals, and the intervals' simulated coverage."""

from __future__ import annotations

import json
import math
from itertools import combinations
from pathlib import Path
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from ray_app.benchmarks import load_benchmark
from ray_app.errors import InputError
from ray_app.metrics.correlation import correlations, rated_outcomes, summarise_rated
from ray_app.metrics.terminal_table import to_text
from ray_app.metrics.verdict_file import score_verdict_file, scored_records

FIXTURE = Path(__file__).parents[2] / "fixtures" / "benchmarks" / "rated.jsonl"
COLUMN = st.lists(st.integers(0, 4), min_size=4, max_size=12)


def pearson(x: list[float], y: list[float]) -> float:
    mx, my = sum(x) / len(x), sum(y) / len(y)
    top = sum((a - mx) * (b - my) for a, b in zip(x, y, strict=True))
    return top / math.sqrt(sum((a - mx) ** 2 for a in x) * sum((b - my) ** 2 for b in y))


def ranks(x: list[float]) -> list[float]:
    """The mean rank of equal values."""
    return [sum(b < a for b in x) + (sum(b == a for b in x) + 1) / 2 for a in x]


def kendall(x: list[float], y: list[float]) -> float:
    couples = list(combinations(range(len(x)), 2))
    signs = [(np.sign(x[i] - x[j]), np.sign(y[i] - y[j])) for i, j in couples]
    ties = [sum(s[k] != 0 for s in signs) for k in (0, 1)]
    return float(sum(a * b for a, b in signs)) / math.sqrt(ties[0] * ties[1])


@given(COLUMN, st.randoms(use_true_random=False))
@hypothesis_settings(max_examples=40, deadline=None)
def test_the_three_against_their_formulas(x: list[int], random: Random) -> None:
    y = [random.randint(0, 4) for _ in x]
    found = correlations(np.array(x, float), np.array(y, float), [str(i) for i in range(len(x))], 0, 5)
    if len(set(x)) == 1 or len(set(y)) == 1:
        assert {e["value"] for e in found.values()} == {None}
        return
    one, two = [float(v) for v in x], [float(v) for v in y]
    expected = {"pearson": pearson(one, two), "spearman": pearson(ranks(one), ranks(two)), "kendall": kendall(one, two)}
    assert {name: e["value"] for name, e in found.items()} == pytest.approx(expected, abs=1e-9)


def test_intervals_hold_their_value_and_widen_with_clusters() -> None:
    rng = np.random.default_rng(5)
    x = np.repeat(rng.normal(size=20), 5)
    y = np.repeat(rng.normal(size=20), 5) + x
    by_five = correlations(x, y, [str(i // 5) for i in range(100)], 0, 300, ("pearson",))["pearson"]
    alone = correlations(x, y, [str(i) for i in range(100)], 0, 300, ("pearson",))["pearson"]
    assert by_five["value"] == alone["value"]
    widths = [float(e["high"] or 0) - float(e["low"] or 0) for e in (by_five, alone)]
    assert widths[0] > 1.5 * widths[1]
    for e in (by_five, alone):
        assert -1 <= (e["low"] or 0) < (e["value"] or 0) < (e["high"] or 0) <= 1


def test_order_of_rows_does_not_matter_and_few_clusters_have_no_interval() -> None:
    rng = np.random.default_rng(1)
    x, y, groups = rng.normal(size=12), rng.normal(size=12), [str(i // 2) for i in range(12)]
    back = np.arange(12)[::-1]
    turned = correlations(x[back], y[back], [groups[i] for i in back], 0, 100)
    for name, e in correlations(x, y, groups, 0, 100).items():
        assert turned[name]["value"] == pytest.approx(e["value"])
    two = correlations(x, y, ["a"] * 6 + ["b"] * 6, 0, 100)["kendall"]
    assert two["value"] is not None
    assert (two["low"], two["high"]) == (None, None)


def test_a_perfect_order_is_not_certain() -> None:
    x = np.arange(8.0)
    found = correlations(x, x**3, [str(i) for i in range(8)], 0, 200)["spearman"]
    assert found["value"] == pytest.approx(1)
    assert (found["low"] or 1) < 0.95


def of_normal(name: str, rho: float) -> float:
    """What a correlation is of two normal variables whose Pearson's r is `rho` (Kruskal, JASA 53, 1958)."""
    if name == "pearson":
        return rho
    return 6 / math.pi * math.asin(rho / 2) if name == "spearman" else 2 / math.pi * math.asin(rho)


FURTHER = [(clusters, rho) for clusters in (4, 6, 12, 30) for rho in (0.0, 0.5, 0.9)]


@pytest.mark.parametrize(
    ("clusters", "rho", "rounds"),
    [(6, 0.5, 150), (12, 0.0, 60), *[pytest.param(*at, 300, marks=pytest.mark.long) for at in FURTHER]],
)
def test_simulated_coverage(clusters: int, rho: float, rounds: int) -> None:
    """Two responses an instruction, half of each variable shared by them. 300 sets say 0.95 to within 0.025, 60 to
    within 0.06.
    """
    rng, names = np.random.default_rng(7), ("pearson", "spearman", "kendall")
    covered = dict.fromkeys(names, 0)
    groups = [str(i // 2) for i in range(2 * clusters)]
    for _ in range(rounds):
        shared = rng.normal(size=(2, clusters)).repeat(2, axis=1)
        u, v = math.sqrt(0.5) * shared + math.sqrt(0.5) * rng.normal(size=(2, 2 * clusters))
        found = correlations(u, rho * u + math.sqrt(1 - rho**2) * v, groups, 0, 60, names)
        for name, e in found.items():
            low, high = -1.0 if e["low"] is None else e["low"], 1.0 if e["high"] is None else e["high"]
            covered[name] += low <= of_normal(name, rho) <= high
    assert min(covered.values()) / rounds >= 0.93, covered


def test_summary_by_hand_and_the_same_from_its_verdict_file(tmp_path: Path) -> None:
    benchmark = load_benchmark(f"rated={FIXTURE}")
    ratings = {"1": 9.0, "2": 3.0, "3": 8.0, "4": 2.0, "5": None, "6": 4.0}
    summary = summarise_rated(benchmark, rated_outcomes(benchmark, ratings), 0, 50)
    json.dumps(summary, allow_nan=False)
    overall = {name: e["value"] for name, e in summary["overall"].items()}
    judged, human = [9.0, 3.0, 8.0, 2.0, 4.0], [5.0, 1.0, 4.5, 1.0, 2.0]
    lengths = [float(len(t)) for t in ("An apple.", "A chair.", "An oak, I think.", "A lamp.", "Rain.")]
    assert overall == pytest.approx(
        {
            "pearson": pearson(judged, human),
            "spearman": pearson(ranks(judged), ranks(human)),
            "kendall": kendall(judged, human),
            "unparsed_rate": 3 / 8,
            "length_spearman": pearson(ranks(lengths), ranks(human)),
        }
    )
    assert summary["overall"]["pearson"]["n"] == 5
    assert (summary["n"], summary["quarantined"]) == (8, {"empty_response": 1, "no_score": 1})
    assert summary["subsets"]["verse"]["kendall"]["value"] is None, "one rated response is no order"
    text = to_text(summary, 80)
    assert "Kendall's tau-b × 100" in text
    assert "8 rows" not in text
    assert max(map(len, text.splitlines())) <= 80
    given_ = tmp_path / "verdicts.jsonl"
    given_.write_text("".join(json.dumps({"id": i, "rating": r}) + "\n" for i, r in ratings.items()))
    again = score_verdict_file(benchmark, str(given_), resamples=50)
    assert again["overall"] == summary["overall"]
    assert [r["id"] for r in scored_records(benchmark, str(given_))] == [*ratings, "7", "8"]
    given_.write_text(json.dumps({"id": "1", "rating": 3}) + "\n")
    with pytest.raises(InputError, match="5 missing ids"):
        score_verdict_file(benchmark, str(given_))
