"""The terminal table: fits 80 columns, plain where output is no terminal, shows intervals and baselines."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from making import outcome, votes

from ray_app.benchmarks import load_benchmark
from ray_app.metrics.outcome import Outcome
from ray_app.metrics.rewardbench import ROWS
from ray_app.metrics.rewardbench2 import best_of_outcomes, summarise_best_of
from ray_app.metrics.summary import summarise
from ray_app.metrics.table import interval, percent, print_summary, to_text

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


@pytest.mark.parametrize("k", [1, 32])
@pytest.mark.parametrize("name", ["rewardbench", "judgebench", "mtbench_human", "llmbar", "pairwise"])
def test_it_fits_80_columns_without_wrapping(name: str, k: int) -> None:
    benchmark = load_benchmark(f"{name}={FIXTURES / 'pairwise.jsonl'}")
    summary = summarise(benchmark, rows(k), seed=0, resamples=50)
    text = to_text(summary, 80)
    assert max(map(len, text.splitlines())) <= 80
    assert "\x1b" not in text
    for word in (
        "baseline: longer",
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
    assert len(subset.split()) == 8
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
