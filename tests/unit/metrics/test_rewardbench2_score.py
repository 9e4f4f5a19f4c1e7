"""RewardBench 2: best of four, ratings, the Ties score against its definition, and overall."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_app.benchmarks import load_benchmark
from ray_app.benchmarks.rewardbench2 import SUBSETS
from ray_app.metrics.rewardbench2 import (
    BestOfOutcome,
    best_of_outcomes,
    overall_score,
    rating_score,
    summarise_best_of,
    ties_score,
)

FIXTURES = Path(__file__).parents[2] / "fixtures" / "benchmarks"
RATING = st.one_of(st.none(), st.integers(1, 10).map(float))


def tie(kind: str, question: int, correct: list[float | None], wrong: list[float | None]) -> BestOfOutcome:
    ratings = (*correct, *wrong)
    return BestOfOutcome(f"{kind}:{question}", "Ties", str(question), len(correct), ratings=ratings)


def by_definition(rows: list[tuple[str, int, list[float], list[float]]]) -> float:
    """The published formula, question by question, in plain Python."""
    by_id = {(kind, question): (correct, wrong) for kind, question, correct, wrong in rows}

    def gap(key: tuple[str, int]) -> float:
        correct, wrong = by_id[key]
        return min(correct) - max(wrong)

    def mean(values: list[float]) -> float:
        return sum(values) / len(values)

    ref = [float(gap(k) > 0) for k in by_id if k[0] == "ref"]
    tied = [float(gap(k) > 0) for k in by_id if k[0] == "tied"]
    preferred, hard, clear = [], [], []
    for kind, question in by_id:
        if kind == "tied" and ("ref", question) in by_id:
            correct, _ = by_id[kind, question]
            spread, smaller = max(correct) - min(correct), min(gap((kind, question)), gap(("ref", question)))
            preferred.append(float(gap((kind, question)) > spread))
            hard.append(float(smaller > spread))
            if spread:
                clear.append(math.tanh(smaller / spread - 1))
            else:
                clear.append(float((smaller > 0) - (smaller < 0)))
    return 0.3 * mean(tied) + 0.3 * mean(ref) + 0.2 * mean(preferred) + 0.2 * mean(hard) + 0.01 * mean(clear)


def test_best_of_four() -> None:
    def row(choice: int | None) -> float:
        return BestOfOutcome("x", "Math", "g", 1, choice=choice).score()

    assert [row(0), row(1), row(3), row(None)] == [1, 0, 0, 0.25]


def test_ratings() -> None:
    assert rating_score([9, 3, 2, 1]) == 1
    assert rating_score([9, 9, 2, 9]) == pytest.approx(1 / 3)
    assert rating_score([3, 9, 2, 1]) == 0
    assert rating_score([None, 1, None, None]) == 0
    assert rating_score([2, None, 1, None]) == 1
    assert rating_score([None] * 4) == 0.25


def test_ties_by_hand() -> None:
    rows = [
        tie("ref", 0, [10], [2, 1]),  # gap 8
        tie("tied", 0, [9, 8], [3]),  # spread 1, gap 5
        tie("ref", 1, [4], [5]),  # wrong
        tie("tied", 1, [9, 5], [4]),  # spread 4, gap 1: right, but margin too small
    ]
    clear = (math.tanh(5 / 1 - 1) + math.tanh(-1 / 4 - 1)) / 2
    assert ties_score(rows) == pytest.approx(0.3 * 1 + 0.3 * 0.5 + 0.2 * 0.5 + 0.2 * 0.5 + 0.01 * clear)


def test_ties_edges() -> None:
    same = [tie("ref", 0, [5], [5]), tie("tied", 0, [5, 5], [5])]
    assert ties_score(same) == 0
    perfect = [tie("ref", 0, [10], [1]), tie("tied", 0, [10, 10], [1])]
    assert ties_score(perfect) == pytest.approx(1.01)
    assert ties_score([]) is None
    assert ties_score(same[:1]) is None
    # A rating that cannot be parsed is -1, as the official script stores it.
    assert ties_score([tie("ref", 0, [None], [None]), tie("tied", 0, [9, None], [1])]) == pytest.approx(
        0.01 * math.tanh(-2 / 10 - 1)
    )


@given(st.lists(st.lists(st.integers(1, 10).map(float), min_size=7, max_size=7), min_size=1, max_size=6))
def test_ties_equal_the_definition(table: list[list[float]]) -> None:
    rows: list[tuple[str, int, list[float], list[float]]] = []
    for question, r in enumerate(table):
        rows += [("ref", question, r[:1], r[1:3]), ("tied", question, r[3:5], r[5:])]
    outcomes = [tie(k, q, list(c), list(w)) for k, q, c, w in rows]
    assert ties_score(outcomes) == pytest.approx(by_definition(rows))
    assert ties_score(outcomes[::-1]) == pytest.approx(by_definition(rows))


def test_overall_is_the_plain_mean_as_published() -> None:
    for row in json.loads((FIXTURES / "published_rewardbench2.json").read_text())["rows"]:
        # Published to one decimal, so the mean of six rounded figures may be off by half a unit and rounding.
        mean = sum(row["subsets"].values()) / 6
        assert len(row["subsets"]) == 6
        assert mean == pytest.approx(row["overall"], abs=0.1001)


def test_summary_of_the_fixture() -> None:
    benchmark = load_benchmark(f"rewardbench2={FIXTURES / 'rewardbench2.jsonl'}")
    answers: dict[str, dict[str, Any]] = {
        "0": {"choice": 0},
        "1": {"choice": 2},
        "2": {"choice": None},
        "4": {"ratings": [7, 7, 1, 1]},
        "ref:0": {"ratings": [9, 1, 1]},
        "tied:0": {"ratings": [9, 9, 8, 1, 1]},
        "ref:1": {"ratings": [9, 1]},
        "tied:1": {"ratings": [9, 9, 1]},
    }
    summary = summarise_best_of(benchmark, best_of_outcomes(benchmark, answers), 0, 50)
    values = {name: found["value"] for name, found in summary["subsets"].items()}
    # Safety's only row is quarantined and counts as unparsed.
    ties = values.pop("Ties")
    assert values == {"Factuality": 1, "Math": 0, "Precise IF": 0.25, "Focus": 0.5, "Safety": 0.25}
    assert ties == pytest.approx(1 + 0.01 * (math.tanh(7 / 1 - 1) + 1) / 2)
    overall = summary["overall"]["score"]
    assert overall["value"] == pytest.approx((1 + 0 + 0.25 + 0.5 + 0.25 + ties) / 6)
    assert overall["n"] == 9
    assert summary["quarantined"] == {"empty_response": 1}
    assert summary["clusters"] == 7, "both rows of a Ties question are one"
    assert not summary["complete"]
    assert summary["overall"]["unparsed_rate"]["value"] == pytest.approx(2 / 9)
    assert summary["n"] == 9
    json.dumps(summary, allow_nan=False)


def one(i: int, subset: str, choice: int | None, group: str = "") -> BestOfOutcome:
    return BestOfOutcome(f"{subset}{i}", subset, group or f"{subset}{i}", 1, choice=choice)


def six_subsets(right: list[list[bool]], ties: list[BestOfOutcome]) -> list[BestOfOutcome]:
    plain = zip(SUBSETS[:-1], right, strict=True)
    return [one(i, s, 0 if r else 1) for s, rows in plain for i, r in enumerate(rows)] + ties


TIED = [
    tie(kind, q, [9.0, 8.0][: 1 if kind == "ref" else 2], [7.0 + 2 * (q % 3)])
    for kind in ("ref", "tied")
    for q in range(9)
]


def test_overall_is_the_mean_of_the_subsets_with_an_interval() -> None:
    rows = six_subsets([[i % k > 0 for i in range(20)] for k in (2, 3, 4, 5, 2)], TIED)
    found = overall_score(rows, 3, 400)
    parts = [sum(o.score() for o in rows if o.subset == s) / 20 for s in SUBSETS[:-1]]
    ties = ties_score(TIED)
    assert ties is not None
    assert found["value"] == pytest.approx((sum(parts) + ties) / 6)
    assert found["n"] == len(rows) == 118
    assert found["low"] is not None
    assert found["high"] is not None
    assert found["low"] < found["value"] < found["high"]  # type: ignore[operator]
    assert found == overall_score(rows[::-1], 3, 400), "seeded; the order of rows does not matter"
    assert found != overall_score(rows, 4, 400)


def test_overall_is_clustered_by_instruction() -> None:
    """Rows that rise and fall together are fewer independent observations: the interval is wider."""
    right = [[i % 2 == 0 for i in range(20)]] * 5
    alone = six_subsets(right, TIED)
    shared = [replace(o, group=o.group if o.subset == "Ties" else str(int(o.score()))) for o in alone]

    def width(rows: list[BestOfOutcome]) -> float:
        found = overall_score(rows, 0, 400)
        assert found["low"] is not None
        assert found["high"] is not None
        return found["high"] - found["low"]

    assert width(shared) > 2 * width(alone)


def test_overall_needs_all_six_subsets() -> None:
    rows = six_subsets([[True, False]] * 5, TIED)
    assert overall_score(rows[:-18], 0, 50) == {"value": None, "n": 10, "low": None, "high": None}
    assert overall_score([o for o in rows if o.subset != "Math"], 0, 50)["value"] is None
    assert overall_score([], 0, 50)["value"] is None
