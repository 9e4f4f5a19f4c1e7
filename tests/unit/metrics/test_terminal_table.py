"""The terminal table: fits 80 columns, plain where output is no terminal, shows intervals and baselines."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest
from making import outcome, votes

from ray_app.benchmarks import load_benchmark
from ray_app.metrics.compare import compare
from ray_app.metrics.outcome import Outcome
from ray_app.metrics.rewardbench import ROWS
from ray_app.metrics.rewardbench2 import best_of_outcomes, summarise_best_of
from ray_app.metrics.summary import summarise
from ray_app.metrics.table_parts import interval, percent
from ray_app.metrics.terminal_table import print_summary, to_text

FIXTURES = Path(__file__).parents[2] / "fixtures" / "benchmarks"


def rows(k: int = 1) -> list[Outcome]:
    return [
        outcome(
            f"{subset}{i}",
            "A",
            "A" if i % 3 else "B",
            "B" if i % 4 else None,
            subset=subset,
            length_a=i * 1000,
            length_b=1500,
            votes_ab=votes(("A" if i % 3 else "B") * k),
            votes_ba=votes(("B" if i % 4 else "-") * k),
        )
        for subset in [*ROWS, "a subset with a name that is far too long for any table"]
        for i in range(12)
    ]


def test_official_is_not_said_of_this_projects_own_reading() -> None:
    benchmark = load_benchmark(f"rewardbench={FIXTURES / 'pairwise.jsonl'}")
    one_order = [replace(row, orders=("ab",)) for row in rows()]
    summary = summarise(benchmark, one_order, seed=0, resamples=50)
    assert summary["protocol"] == "official"
    text = to_text(summary)
    assert "one order a row" in text.splitlines()[0]
    assert "official" not in text
    assert "parser" not in text
    assert "parser rewardbench" in to_text({**summary, "parser": "rewardbench"}).splitlines()[0]


def test_thirds_of_similarity_are_shown_where_rows_tell_it() -> None:
    benchmark = load_benchmark(f"pairwise={FIXTURES / 'pairwise.jsonl'}")
    told = [replace(row, similarity=i / 36) for i, row in enumerate(rows()[:36])]
    text = to_text(summarise(benchmark, told, seed=0, resamples=50), 80)
    shown = [" ".join(line.split()) for line in text.splitlines()]
    assert any(line.startswith("least: 0.00 to 0.31 12 ") for line in shown), text
    assert any(line.startswith("most: 0.67 to 0.97 12 ") for line in shown), text
    assert max(map(len, text.splitlines())) <= 80
    assert "similarity" not in to_text(summarise(benchmark, rows(), seed=0, resamples=50), 80)


@pytest.mark.parametrize("k", [1, 32])
@pytest.mark.parametrize("name", ["rewardbench", "judgebench", "mtbench_human", "llmbar", "pairwise"])
def test_it_fits_80_columns_without_wrapping(name: str, k: int) -> None:
    benchmark = load_benchmark(f"{name}={FIXTURES / 'pairwise.jsonl'}")
    summary = summarise(benchmark, rows(k), seed=0, resamples=50)
    text = to_text(summary, 80)
    assert max(map(len, text.splitlines())) <= 80
    assert "\x1b" not in text
    for word in (
        "baseline: always the longer",
        "baseline: always A",
        "95 % interval",
        "hep-python",
        "a subset with a name",
    ):
        assert word in text
    overall = summary["overall"]["vote_accuracy" if k > 1 else "accuracy"]
    assert f"{percent(overall['value'])}" in text
    assert interval(overall) in text
    subset = next(line for line in text.splitlines() if line.strip().startswith("llmbar-adver-neighbor"))
    assert len(subset.split()) == 9
    assert "…" not in subset


def test_best_of_four_table() -> None:
    benchmark = load_benchmark(f"rewardbench2={FIXTURES / 'rewardbench2.jsonl'}")
    text = to_text(summarise_best_of(benchmark, best_of_outcomes(benchmark, {}), 0, 20), 80)
    assert "Factuality" in text
    overall = next(line for line in text.splitlines() if line.strip().startswith("overall: mean of the six subsets"))
    assert overall.split()[-1] == "9"
    assert "1 quarantined" in text
    assert max(map(len, text.splitlines())) <= 80


def test_colour_only_on_a_terminal() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    summary = summarise(load_benchmark(str(FIXTURES / "pairwise.jsonl")), rows(), seed=0, resamples=20)
    plain, terminal = io.StringIO(), Terminal()
    print_summary(summary, plain)
    print_summary(summary, terminal)
    assert "\x1b" not in plain.getvalue()
    assert "\x1b[1m" in terminal.getvalue()


def test_undefined_figures_are_a_dash() -> None:
    assert percent(None) == interval({"low": None, "high": None}) == "-"
    assert percent(0.12345) == "12.3"
    assert interval({"low": 0.5, "high": 1.0}) == "50.0-100.0"


def test_a_subset_table_says_what_its_columns_are_and_has_no_empty_ones() -> None:
    benchmark = load_benchmark(str(FIXTURES / "pairwise.jsonl"))
    text = " ".join(to_text(summarise(benchmark, rows(), seed=0, resamples=20), 80).split())
    assert "figures are percent of n, intervals are 95 % intervals by instruction" in text
    assert "acc.: accuracy, unparsed = wrong; both: right in both orders; first: verdicts for the response" in text
    given = [replace(o, orders=("any",), verdict_ba=None, votes_ab=None, votes_ba=None) for o in rows()]
    text = to_text(summarise(benchmark, given, seed=0, resamples=20), 80)
    header = next(line for line in text.splitlines() if line.strip().startswith("subset"))
    assert header.split() == ["subset", "n", "acc.", "95", "%", "int.", "longer", "words", "A"]
    assert "both:" not in text


def test_two_runs_and_early_stopped_votes_are_told() -> None:
    benchmark = load_benchmark(str(FIXTURES / "pairwise.jsonl"))
    few = [replace(o, partial=True) for o in rows(8)]
    summary = summarise(benchmark, few, seed=0, resamples=20, votes=8)
    better = [replace(o, verdict_ab="A", verdict_ba="B") for o in few]
    summary["compared"] = {"with": "runs/old/set/verdicts.jsonl", **compare(few, better, resamples=200)}
    text = to_text(summary, 80)
    assert "no calibration: voting stopped" in text
    lines = {line.strip()[:10]: line.split() for line in text.splitlines()}
    difference = summary["compared"]["difference"]
    assert lines["difference"][1] == f"{100 * difference['value']:+.1f}"
    assert lines["difference"][2:5] == [f"{100 * difference['low']:+.1f}", "to", f"{100 * difference['high']:+.1f}"]
    assert "instructions better : worse" in text
    assert "the other run: runs/old/set/verdicts.jsonl" in text
    assert max(map(len, text.splitlines())) <= 80
