"""Evaluation: a judge scores pairs with gold labels that are never trained on (section 4.2).

Each set (validation, every test benchmark, the held-out synthetic pairs) is a committed unit of its own:
iter_NN/evaluation/SET/ holds the votes, verdicts.jsonl and summary.json. More benchmarks never invalidate.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ray_app import best_of
from ray_app.benchmarks import Benchmark, load_benchmark
from ray_app.benchmarks.registry import benchmark_name
from ray_app.config import IterateSettings
from ray_app.engine.settings import EngineSettings
from ray_app.errors import InputError
from ray_app.judge_card import Judge
from ray_app.metrics import Outcome, compare, read_verdicts, summarise, write_verdicts
from ray_app.metrics.rewardbench2 import best_of_outcomes, lost_of, summarise_best_of
from ray_app.metrics.verdict_file import join as joined
from ray_app.prompts import load_prompt
from ray_app.run.storage import exists, join, list_files, read_parquet, write_json_atomic
from ray_app.runner import StageResult
from ray_app.schema import HELDOUT, PairwiseRow, content_id, unpack_text
from ray_app.stages.context import Context
from ray_app.validation import STAGE, VALIDATION, covered, judge_set

HELDOUT_SET = "heldout"
HEADLINE = ("accuracy", "vote_accuracy", "position_consistent_accuracy", "unparsed_rate", "first_position_rate")


def sets_of(settings: IterateSettings) -> dict[str, str]:
    """{set name: NAME[=PATH]}, validation first. Held-out pairs have no path: they are the run's own.

    A set's name is its folder, so names are unique. Raises InputError where they are not.
    """
    part = settings.evaluation
    named = {VALIDATION: part.validation} if part.validation else {}
    for spec in part.test:
        name = benchmark_name(spec)
        if name in (VALIDATION, HELDOUT_SET):
            raise InputError(f"evaluation.test: {spec} is called {name}, a set of the loop's own; write NAME=PATH")
        if name in named:
            raise InputError(f"evaluation.test: {named[name]} and {spec} are both called {name}; write NAME=PATH")
        named[name] = spec
    if part.heldout and settings.instructions.heldout_fraction > 0:
        named[HELDOUT_SET] = ""
    return named


def settings_of(settings: IterateSettings, judge: Mapping[str, Any]) -> dict[str, Any]:
    """What the fingerprint of one set covers. `judge` is the identity of the engine that judges."""
    return {"seed": settings.seed, **covered(settings), "judge": judge}


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
    benchmark = load_benchmark(spec, settings.evaluation.limit) if spec else heldout(context, iteration)
    if not benchmark.n:
        return StageResult(extra={"set": name, "headline": None})
    if benchmark.kind == "best_of":
        result = run_best_of(context, directory, name, benchmark, engine, judge_name)
        return result.with_extra(context.since_checkpoint(iteration, result))
    judged = judge_set(
        context.runner,
        settings,
        benchmark,
        name=name,
        directory=directory,
        engine=engine,
        iteration=iteration,
        judge_name=judge_name,
    )
    votes = None if settings.judging.mode == "pointwise" else settings.evaluation.votes
    summary = summarise(benchmark, judged.outcomes, seed=settings.seed, votes=votes, unjudged=judged.unjudged)
    write_verdicts(join(directory, "verdicts.jsonl"), judged.records)
    change = against_before(context, benchmark, judged.outcomes, iteration, name)
    if change:
        summary["against_iteration_before"] = change
    write_json_atomic(join(directory, "summary.json"), summary)
    result = judged.result.with_extra(context.since_checkpoint(iteration, judged.result))
    return result.with_extra({"set": name, "headline": headline(summary), "change": change})


def run_best_of(
    context: Context, directory: str, name: str, benchmark: Benchmark, engine: EngineSettings, judge_name: str
) -> StageResult:
    """RewardBench 2: four responses by letter, Ties (in pointwise mode all) by ratings."""
    settings, part = context.settings, context.settings.evaluation
    judge = Judge(
        engine,
        load_prompt(settings.judge_prompt),
        settings.stop_after_verdict,
        settings.judging.mode,
        judge_name,
    )
    named = dataclasses.replace(benchmark, name=name)
    result = best_of.judge_rows(context.runner, named, directory, judge, part.generation, part.votes, settings.seed)
    answers = best_of.answers_in(directory, named, settings.seed)
    lost = lost_of(named, answers)
    outcomes = best_of_outcomes(named, answers)
    summary = summarise_best_of(named, outcomes, settings.seed, votes=part.votes, unjudged=lost)
    lines = ({"id": identity, **answer} for identity, answer in answers.items())
    write_verdicts(join(directory, "verdicts.jsonl"), lines)
    write_json_atomic(join(directory, "summary.json"), summary)
    figures = {"accuracy": summary["overall"]["score"], "unparsed_rate": summary["overall"]["unparsed_rate"]}
    return result.with_extra({"set": name, "headline": figures, "change": None})


def against_before(
    context: Context, benchmark: Benchmark, outcomes: list[Outcome], iteration: int, name: str
) -> dict[str, Any] | None:
    """M(iteration) against M(iteration - 1) on the same rows, or None where these were not (all) judged."""
    if iteration == 0:
        return None
    before = join(context.folder.stage_dir(STAGE, iteration - 1), name, "verdicts.jsonl")
    if not exists(before):
        return None
    try:
        return compare(joined(benchmark, read_verdicts(before)), outcomes, context.settings.seed)
    except InputError:  # pairs made anew each iteration are other rows
        return None


def headline(summary: Mapping[str, Any]) -> dict[str, Any]:
    """The figures of a summary that the table shows: {metric: {"value", "n", "low", "high"}}."""
    return {name: summary["overall"][name] for name in HEADLINE if name in summary["overall"]}


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
