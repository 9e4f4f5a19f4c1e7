"""The summary of each benchmark: figures by hand, order of rows, the length baseline on real files."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from making import outcome, outcomes, votes

from ray_app.benchmarks import Benchmark, load_benchmark
from ray_app.errors import InputError
from ray_app.metrics.outcome import Outcome, outcomes_of
from ray_app.metrics.summary import summarise

FIXTURES = Path(__file__).parents[2] / "fixtures" / "benchmarks"
EVAL_DATA = os.environ.get("STE_EVAL_DATA")


def load(name: str) -> Benchmark:
    return load_benchmark(f"{name}={FIXTURES / name if name == 'llmbar' else FIXTURES / f'{name}.jsonl'}")


def judged_right(benchmark: Benchmark) -> list[Outcome]:
    other = {"A": "B", "B": "A"}
    tallies = {row.id: {"ab": votes(row.label or ""), "ba": votes(other[row.label or ""])} for row in benchmark.rows}
    return outcomes_of(benchmark, tallies)


def longer_wins(path: Path) -> float:
    """The independent count: share of rows whose better response is the longer one, equal ones half."""
    score = 0.0
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        texts = [
            "".join(m["content"] for m in t) if isinstance(t, list) else t
            for t in (row["response_a"], row["response_b"])
        ]
        gap = (len(texts[0]) - len(texts[1])) * (1 if row["label"] == "A" else -1)
        score += 1 if gap > 0 else 0.5 if gap == 0 else 0
    return score / len(rows)


def test_figures_by_hand() -> None:
    benchmark = load("pairwise")
    tallies = {
        "p1": {"ab": votes("A"), "ba": votes("B")},
        "p2": {"ab": votes("A"), "ba": votes("A")},
        "p3": {"ab": votes("B"), "ba": votes("A")},
        "p4": {"ab": votes("-"), "ba": votes("A")},
        "p5": {"ab": votes("B"), "ba": votes("A")},
    }
    summary = summarise(benchmark, outcomes_of(benchmark, tallies), seed=1)
    json.dumps(summary, allow_nan=False)
    overall = {name: found["value"] for name, found in summary["overall"].items()}
    assert overall == pytest.approx(
        {
            "accuracy": 6 / 10,
            "accuracy_unparsed_half": 6.5 / 10,
            "position_consistent_accuracy": 2 / 5,
            "inconsistent_rate": 1 / 5,
            "first_position_rate": 6 / 9,
            "unparsed_rate": 1 / 10,
            # The longer one is wrong in p1 and p5, right in p3 and p4; p2 has two of equal length.
            "length_baseline": 2.5 / 5,
            "beyond_longer": 6 / 10 - 2.5 / 5,
            "overlap_baseline": 1 / 2,  # no response has a word of its instruction: a tie each
            "beyond_overlap": 6 / 10 - 1 / 2,
            "constant_baseline": 2 / 5,
        }
    )
    assert {name: block["accuracy"]["value"] for name, block in summary["subsets"].items()} == pytest.approx(
        {"long": 3 / 6, "short": 3 / 4}
    )
    assert (summary["n"], summary["clusters"], summary["votes"], summary["protocol"]) == (
        5,
        4,
        1,
        "both_orders",
    )
    assert summary["length_counts"] == {"longer": 2, "equal": 1, "shorter": 2}


def test_votes_add_vote_accuracy_and_calibration() -> None:
    benchmark = load("pairwise")
    tallies = {row.id: {"ab": votes("AAB"), "ba": votes("AB-")} for row in benchmark.rows}
    summary = summarise(benchmark, outcomes_of(benchmark, tallies, votes=3), seed=1, resamples=50)
    overall = {name: found["value"] for name, found in summary["overall"].items()}
    # Gold A (2 rows) has 2/3 of the votes in order ab, gold B (3 rows) 1/3; in order ba each has 1/3.
    assert overall["accuracy"] == pytest.approx((2 * (2 / 3 + 1 / 3) + 3 * (1 / 3 + 1 / 3)) / 10)
    assert overall["vote_accuracy"] == pytest.approx(2 / 10)
    assert summary["calibration"]["ece"]["n"] == 5
    stopped = summarise(benchmark, outcomes_of(benchmark, tallies, votes=4), seed=1, resamples=50)
    assert "accuracy" not in stopped["overall"]
    assert stopped["overall"]["vote_accuracy"]["value"] == pytest.approx(2 / 10)
    assert stopped["calibration"] is None
    assert stopped["votes_partial"]


@pytest.mark.parametrize("name", ["rewardbench", "helpsteer2", "mtbench_human", "judgebench", "llmbar", "pairwise"])
def test_a_perfect_judge_on_every_fixture(name: str) -> None:
    benchmark = load(name)
    summary = summarise(benchmark, judged_right(benchmark), seed=0, resamples=50)
    share = len(benchmark.rows) / benchmark.n  # quarantined rows stay in n, as wrong
    assert summary["overall"]["accuracy"]["value"] == pytest.approx(share)
    assert summary["n"] == benchmark.n
    json.dumps(summary, allow_nan=False)


def test_mtbench_agreement() -> None:
    benchmark = load("mtbench_human")
    found = summarise(benchmark, judged_right(benchmark), seed=0, resamples=50)
    # Three non-tied votes on the first pair: A, A, B, so one of three pairs of humans agrees.
    assert found["mtbench"]["human_human"]["value"] == pytest.approx(1 / 3)
    assert found["mtbench"]["agreement"]["value"] == 1
    assert found["mtbench"]["coverage"]["value"] == pytest.approx(4 / 5)
    assert set(found["subsets"]) == {"turn_1", "turn_2"}
    assert found["human_agreement"]["pairs"] == 1
    assert found["dropped"] == {"tie": 2}


def test_judgebench_has_both_scorings() -> None:
    benchmark = load("judgebench")
    rows = judged_right(benchmark)
    half = [outcome(o.id, o.label, o.verdict_ab, None, subset=o.subset) for o in rows]
    found = summarise(benchmark, half, seed=0, resamples=50)["judgebench"]
    assert found["overall"]["net_agreement"]["value"] == pytest.approx(5 / 6)
    assert found["overall"]["both_orders"]["value"] == 0
    assert found["math"]["net_agreement"] == {"value": 1, "n": 1, "low": None, "high": None}


def test_llmbar_averages_subsets_not_rows() -> None:
    rows = [
        *[outcome(f"n{i}", "A", "A", "B", subset="Natural") for i in range(3)],
        outcome("a", "A", "B", "A", subset="Neighbor"),
        outcome("b", "A", "A", "A", subset="GPTInst"),
        outcome("c", "A", "A", "B", subset="GPTOut"),
        outcome("d", "A", "A", "B", subset="Manual"),
    ]
    found = summarise(load("llmbar"), rows, seed=0, resamples=50)["llmbar"]
    assert found["adversarial"]["value"] == pytest.approx(2.5 / 4)
    assert found["average"]["value"] == pytest.approx(3.5 / 5)


def test_no_rows_is_an_error() -> None:
    with pytest.raises(InputError, match="no row was judged"):
        summarise(load("pairwise"), [], seed=0)


@settings(max_examples=20)
@given(outcomes())
def test_the_order_of_rows_does_not_matter(rows: list[Outcome]) -> None:
    benchmark = load("pairwise")
    shuffled = list(rows)
    random.Random(1).shuffle(shuffled)
    assert summarise(benchmark, rows, 3, 20) == summarise(benchmark, shuffled, 3, 20)


def baseline_of(path: Path) -> float:
    benchmark = load_benchmark(str(path))
    found = summarise(benchmark, judged_right(benchmark), seed=0, resamples=10)
    return float(found["overall"]["length_baseline"]["value"])


def test_always_longer_equals_an_independent_count_on_the_fixture(tmp_path: Path) -> None:
    draw = random.Random(4)
    rows = [
        {
            "id": f"{i}",
            "instruction": f"q{i}",
            "response_a": "x" * draw.randint(1, 6),
            "response_b": "é" * draw.randint(1, 6),
            "label": draw.choice("AB"),
        }
        for i in range(200)
    ]
    path = tmp_path / "made.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    assert baseline_of(path) == pytest.approx(longer_wins(path))


@pytest.mark.skipif(not EVAL_DATA, reason="STE_EVAL_DATA names no folder of pairwise files")
@pytest.mark.parametrize("name", ["gsm8k_pairs", "rmbench_chat", "pandalm"])
def test_always_longer_equals_an_independent_count_on_real_sets(name: str) -> None:
    path = Path(str(EVAL_DATA)) / f"{name}.jsonl"
    assert baseline_of(path) == pytest.approx(longer_wins(path), abs=1e-12)


def test_rows_lost_in_the_engine_and_the_votes_asked_for_are_in_the_summary() -> None:
    benchmark = load("pairwise")
    rows = judged_right(benchmark)
    found = summarise(benchmark, rows, seed=0, resamples=10, votes=8, unjudged={rows[0].id: "engine_error"})
    assert found["votes"] == 8
    assert found["quarantined"]["engine_error"] == 1
