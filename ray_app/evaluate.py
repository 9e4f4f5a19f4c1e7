"""Score a judge on benchmarks with gold labels, or score verdicts that were made anywhere.

    python -m ray_app.evaluate --model M --benchmark rewardbench=rows.jsonl [--benchmark test.jsonl] --output DIR
    python -m ray_app.evaluate --verdicts verdicts.jsonl --benchmark rewardbench=rows.jsonl --output DIR

DIR/NAME/ gets the votes, verdicts.jsonl and summary.json; DIR/summary.json has all summaries. The same command again
continues. Definitions: `ray_app/metrics/`, one figure a file.
"""

from __future__ import annotations

import sys
from typing import Any, Literal

from pydantic import Field

from ray_app.benchmarks import Benchmark, load_benchmark
from ray_app.cli import run_command
from ray_app.errors import InputError
from ray_app.judge_command import JudgingCommand, judge_all, save_verdicts
from ray_app.judging import results_of
from ray_app.metrics import outcomes_of, score_verdict_file, summarise
from ray_app.metrics.outcome import asked_orders
from ray_app.metrics.table import print_summary
from ray_app.run import storage


class EvaluateSettings(JudgingCommand):
    """`python -m ray_app.evaluate`."""

    benchmark: list[str] = Field([], description="NAME, NAME=PATH or PATH; may be given several times")
    output: str = Field(description="folder or URI for summaries and verdicts")
    verdicts: str | None = Field(None, description="score this verdict file of the one benchmark; no model runs")
    protocol: Literal["both_orders", "official"] = "both_orders"


def main(settings: EvaluateSettings) -> int:
    """Judge where needed, write the summaries, print them."""
    if not settings.benchmark:
        raise InputError("--benchmark is missing")
    benchmarks = [load_benchmark(spec, settings.limit) for spec in settings.benchmark]
    names = [benchmark.name for benchmark in benchmarks]
    if len(set(names)) < len(names):
        raise InputError(f"two benchmarks are called {next(n for n in names if names.count(n) > 1)}")
    if settings.verdicts is not None:
        summaries = [score_given(settings, benchmarks)]
    else:
        summaries = score_judge(settings, benchmarks)
    for summary in summaries:
        folder = storage.join(settings.output, summary["benchmark"])
        storage.write_json_atomic(storage.join(folder, "summary.json"), summary)
        print_summary(summary)
    everything = {summary["benchmark"]: summary for summary in summaries}
    storage.write_json_atomic(storage.join(settings.output, "summary.json"), everything)
    print(f"summaries and verdicts: {settings.output}")
    return 0


def score_given(settings: EvaluateSettings, benchmarks: list[Benchmark]) -> dict[str, Any]:
    """The summary of a verdict file, joined by id."""
    if len(benchmarks) != 1:
        raise InputError(f"--verdicts scores one benchmark; {len(benchmarks)} were given")
    assert settings.verdicts is not None
    return score_verdict_file(benchmarks[0], settings.verdicts, seed=settings.seed, protocol=settings.protocol)


def score_judge(settings: EvaluateSettings, benchmarks: list[Benchmark]) -> list[dict[str, Any]]:
    """Judge every benchmark and summarise its votes."""
    for benchmark in benchmarks:
        if benchmark.kind == "best_of":
            raise InputError(f"{benchmark.name}: rows with several responses are scored from --verdicts only")
    work = {storage.join(settings.output, benchmark.name): benchmark for benchmark in benchmarks}
    orders = {
        folder: {row.id: asked_orders(settings.protocol, settings.seed, row.id) for row in benchmark.rows}
        for folder, benchmark in work.items()
    }
    judge_all(settings, work, orders, settings.protocol)
    summaries = []
    for folder, benchmark in work.items():
        tallies, lost = results_of(folder, benchmark.rows, orders[folder])
        outcomes = outcomes_of(
            benchmark,
            tallies,
            votes=settings.votes,
            protocol=settings.protocol,
            seed=settings.seed,
            quarantined=lost,
        )
        save_verdicts(benchmark, tallies, lost, storage.join(folder, "verdicts.jsonl"), settings.votes)
        summaries.append(summarise(benchmark, outcomes, seed=settings.seed))
    return summaries


if __name__ == "__main__":
    sys.exit(run_command(EvaluateSettings, main))
