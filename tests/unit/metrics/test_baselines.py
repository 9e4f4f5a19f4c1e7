"""What needs no judgment, against counts that share no code with it: always the longer response, always the one with
more of the instruction's words.

The same on real sets, where STE_EVAL_DATA names them: test_summary.py.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ray_app.base.verdict import Count, count
from ray_app.benchmarks import load_benchmark
from ray_app.benchmarks.base import Benchmark
from ray_app.metrics.outcome import outcomes_of
from ray_app.metrics.summary import summarise

LENGTHS = Path(__file__).parents[2] / "fixtures" / "benchmarks" / "lengths.jsonl"


def test_always_longer_is_what_a_plain_count_says() -> None:
    points = []
    for row in map(json.loads, LENGTHS.read_text().splitlines()):
        a, b = len(row["response_a"]), len(row["response_b"])
        points.append(0.5 if a == b else float((a > b) == (row["label"] == "A")))
    # By eye: longer is right in 1, 4, 6, 11, wrong in 2, 5, 7, 10; equal in 3, 8, 9. Characters count, not bytes.
    assert points == [1, 0, 0.5, 1, 0, 1, 0, 0.5, 0.5, 0, 1]

    benchmark = load_benchmark(str(LENGTHS))
    tallies = {row.id: {"ab": Count(1), "ba": Count(1)} for row in benchmark.rows}
    summary = summarise(benchmark, outcomes_of(benchmark, tallies), seed=0, resamples=50)
    assert summary["overall"]["length_baseline"]["value"] == pytest.approx(sum(points) / len(points))
    assert summary["overall"]["length_baseline"]["n"] == 11
    assert summary["length_counts"] == {"longer": 4, "equal": 3, "shorter": 4}


def test_above_the_baseline_is_measured_on_the_same_rows() -> None:
    """Row by row: accuracy less what always the longer one scores there, and the plain mean of these."""
    benchmark = load_benchmark(str(LENGTHS))
    verdicts = [("A", "B"), ("A", "A"), ("B", "A")]  # of both orders, in turn
    tallies = {
        row.id: {"ab": count([verdicts[i % 3][0]]), "ba": count([verdicts[i % 3][1]])}
        for i, row in enumerate(benchmark.rows)
    }
    outcomes = outcomes_of(benchmark, tallies)
    apart = []
    for outcome in outcomes:
        gap = outcome.length_a - outcome.length_b
        longer = 0.5 if gap == 0 else float((gap > 0) == (outcome.label == "A"))
        apart.append(outcome.score() - longer)
    found = summarise(benchmark, outcomes, seed=0, resamples=50)["overall"]
    assert found["beyond_longer"]["value"] == pytest.approx(sum(apart) / len(apart))
    assert found["beyond_longer"]["value"] == pytest.approx(
        found["accuracy"]["value"] - found["length_baseline"]["value"]
    )
    assert found["beyond_longer"]["low"] < found["beyond_longer"]["value"] < found["beyond_longer"]["high"]


def benchmark_of(folder: Path, rows: list[tuple[Any, Any, Any, str]]) -> Benchmark:
    """A file of (instruction, response_a, response_b, label), loaded."""
    keys = ("instruction", "response_a", "response_b", "label")
    lines = [json.dumps({"id": str(number), **dict(zip(keys, row, strict=True))}) for number, row in enumerate(rows)]
    (folder / "rows.jsonl").write_text("\n".join(lines))
    return load_benchmark(str(folder / "rows.jsonl"))


def test_more_of_the_instructions_words_is_what_a_plain_count_says(tmp_path: Path) -> None:
    shown = [  # instruction, response_a, response_b, label
        ("Name the capital of Peru.", "The capital is Lima.", "Paris is in France.", "A"),  # 1 : 0, right
        ("Name the capital of Peru.", "Lima.", "The capital of Peru is where I am.", "A"),  # 0 : 2, wrong
        ("Name the capital of Peru.", "The one of it is Lima.", "Who is it of?", "B"),  # grammar alone: a tie
        ("What is 2 + 2?", "It is 4.", "2 is a number", "B"),  # 0 : 1, right; repeated words count once
        ([{"role": "user", "content": "Sing of Lima"}], [{"role": "assistant", "content": "Lima, Lima"}], "Sing", "A"),
        ("首都", "首都是利马", "巴黎", "A"),  # 2 : 0, right
        ("Name it, user.", "The user's name", "No", "A"),
    ]
    points = [1, 0, 0.5, 1, 0.5, 1, 1]
    benchmark = benchmark_of(tmp_path, shown)
    tallies = {row.id: {"ab": Count(1), "ba": Count(1)} for row in benchmark.rows}
    found = summarise(benchmark, outcomes_of(benchmark, tallies), seed=0, resamples=50)["overall"]
    assert found["overlap_baseline"]["value"] == pytest.approx(sum(points) / len(points))
    always_a = 1 / 2
    assert found["beyond_overlap"]["value"] == pytest.approx(always_a - sum(points) / len(points))
    against = found["accuracy_against_overlap"]
    assert (against["value"], against["n"]) == (0.5, 1)


def test_who_matches_words_is_never_right_where_they_mislead(tmp_path: Path) -> None:
    """Ten rows, in three of which the worse response repeats the instruction; a judge by words, and a good one."""
    repeats, answers = "Name the capital of Peru, that is the question", "Lima"
    labels = ["B" if number < 3 else "A" for number in range(10)]
    shown = [("Name the capital of Peru.", repeats, answers, label) for label in labels]
    benchmark, turned = benchmark_of(tmp_path, shown), {"A": "B", "B": "A"}

    def judged(verdicts: list[str]) -> dict[str, Any]:
        tallies = {
            row.id: {"ab": count([verdict]), "ba": count([turned[verdict]])}
            for row, verdict in zip(benchmark.rows, verdicts, strict=True)
        }
        return summarise(benchmark, outcomes_of(benchmark, tallies), seed=0, resamples=50)["overall"]

    by_words, right = judged(["A"] * 10), judged(labels)
    assert [one["accuracy"]["value"] for one in (by_words, right)] == [0.7, 1]
    assert [one["overlap_baseline"]["value"] for one in (by_words, right)] == [0.7, 0.7]
    assert [one["accuracy_against_overlap"]["value"] for one in (by_words, right)] == [0, 1]
    assert right["accuracy_against_overlap"]["n"] == 3
