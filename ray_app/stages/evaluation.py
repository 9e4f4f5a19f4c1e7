"""Evaluation: a judge scores pairs with gold labels that are never trained on (section 4.2).

Each set (validation, every test benchmark, the held-out synthetic pairs) is a committed unit of its own:
iter_NN/evaluation/SET/ holds the votes, verdicts.jsonl and summary.json. More benchmarks never invalidate.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ray_app.benchmarks import Benchmark, load_benchmark
from ray_app.config import IterateSettings
from ray_app.engine.settings import EngineSettings
from ray_app.judging import judge_rows, results_of, units_of, verdict_records
from ray_app.metrics import outcomes_of, summarise, write_verdicts
from ray_app.programs.judge import JudgeProgram
from ray_app.prompts import load_prompt
from ray_app.run.storage import content_hash, join, list_files, read_parquet, write_json_atomic
from ray_app.runner import StageResult, sampling_from
from ray_app.schema import HELDOUT, PairwiseRow, content_id, unpack_text
from ray_app.stages.context import Context

STAGE = "evaluation"
VALIDATION, HELDOUT_SET = "validation", "heldout"
HEADLINE = ("accuracy", "vote_accuracy", "position_consistent_accuracy", "unparsed_rate", "first_position_rate")


def sets_of(settings: IterateSettings) -> dict[str, str]:
    """{set name: NAME[=PATH]}, validation first. Held-out pairs have no path: they are the run's own."""
    part = settings.evaluation
    named = {VALIDATION: part.validation} if part.validation else {}
    for spec in part.test:
        named[spec.split("=", 1)[0].rsplit("/", 1)[-1].split(".")[0]] = spec
    if part.heldout and settings.instructions.heldout_fraction > 0:
        named[HELDOUT_SET] = ""
    return named


def settings_of(settings: IterateSettings, judge_model: str) -> dict[str, Any]:
    """What the fingerprint of one set covers."""
    part = settings.evaluation
    return {
        "seed": settings.seed,
        "evaluation": part.model_dump(mode="json", include={"limit", "votes", "generation", "early_stop"}),
        "judging": {"stop_after_verdict": settings.judging.stop_after_verdict},
        "judge": {"model": judge_model},
        "prompts": {"judge": load_prompt(settings.prompts.judge).hash},
    }


def inputs_of(spec: str) -> dict[str, str]:
    """Content hash of a set's file; a hub id stands for itself."""
    if not spec:
        return {}
    path = spec.split("=", 1)[-1]
    return {spec: spec if path.startswith("hf:") or "=" not in spec else content_hash(path)}


def run(
    context: Context,
    directory: str,
    iteration: int,
    name: str,
    spec: str,
    engine: EngineSettings,
    judge_name: str,
) -> StageResult:
    """Judge one set with the judge that `engine` serves, write its verdicts and summary, return its numbers."""
    settings = context.settings
    part = settings.evaluation
    benchmark = load_benchmark(spec, part.limit) if spec else heldout(context, iteration)
    if not benchmark.n:
        return StageResult(extra={"set": name, "headline": None})
    result = judge_rows(
        context.runner,
        units=units_of(name, benchmark.rows),
        directory=directory,
        program=program(settings, iteration, judge_name),
        engine=engine,
        iteration=iteration,
    )
    tallies, lost = results_of(directory, benchmark.rows)
    outcomes = outcomes_of(benchmark, tallies, votes=part.votes, seed=settings.seed, quarantined=lost)
    summary = summarise(benchmark, outcomes, seed=settings.seed)
    lost |= {fault["id"]: fault["reason"] for fault in benchmark.quarantined}
    ids = [row.id for row in benchmark.rows] + [fault.id for fault in benchmark.faulty]
    write_verdicts(join(directory, "verdicts.jsonl"), verdict_records(ids, tallies, part.votes, lost))
    write_json_atomic(join(directory, "summary.json"), summary)
    return result.with_extra({"set": name, "headline": headline(summary)})


def headline(summary: Mapping[str, Any]) -> dict[str, Any]:
    """The figures of a summary that the table shows: {metric: {"value", "n", "low", "high"}}."""
    return {name: summary["overall"][name] for name in HEADLINE if name in summary["overall"]}


def program(settings: IterateSettings, iteration: int, judge_name: str) -> JudgeProgram:
    """Greedy, or votes, as the settings say."""
    part = settings.evaluation
    return JudgeProgram(
        prompt=load_prompt(settings.prompts.judge),
        sampling=sampling_from(part.generation, settings.judging.stop_after_verdict),
        mode="votes",
        samples=part.votes,
        judge=judge_name,
        run_seed=settings.seed,
        iteration=iteration,
        stage=STAGE,
        key=("benchmark", "id", "order"),
        early_stop=part.early_stop,
    )


def heldout(context: Context, iteration: int) -> Benchmark:
    """The held-out synthetic pairs as a benchmark: chosen is better by construction; a hash bit places it."""
    files = list_files(context.pairs_dir(iteration), "shard-*.parquet")
    rows = list(_heldout_rows(row for file in files for row in read_parquet(file).to_pylist()))
    return Benchmark(name=HELDOUT_SET, rows=rows, n_in=len(rows), source="pairs")


def _heldout_rows(pairs: Iterable[dict[str, Any]]) -> Iterator[PairwiseRow]:
    for pair in pairs:
        if pair["split"] != HELDOUT:
            continue
        chosen_is_a = int(pair["pair_id"], 16) % 2 == 0
        sides = (pair["chosen"], pair["rejected"]) if chosen_is_a else (pair["rejected"], pair["chosen"])
        yield PairwiseRow(
            id=pair["pair_id"],
            subset=pair["category"] or HELDOUT_SET,
            instruction=unpack_text(pair["instruction"]),
            response_a=sides[0],
            response_b=sides[1],
            label="A" if chosen_is_a else "B",
            group=content_id(pair["instruction"]),
        )
