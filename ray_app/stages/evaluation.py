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
from ray_app.config import IterateSettings
from ray_app.engine.settings import EngineSettings
from ray_app.errors import InputError
from ray_app.judge_card import Judge
from ray_app.judging import judge_rows, results_of, units_of, verdict_records
from ray_app.metrics import Outcome, compare, outcomes_of, read_verdicts, summarise, write_verdicts
from ray_app.metrics.rewardbench2 import best_of_outcomes, summarise_best_of
from ray_app.metrics.verdict_file import join as joined
from ray_app.programs.judge import JudgeProgram
from ray_app.programs.score import ScoreProgram
from ray_app.prompts import load_prompt
from ray_app.run.storage import content_hash, exists, join, list_files, read_parquet, write_json_atomic
from ray_app.runner import StageResult, sampling_from
from ray_app.schema import HELDOUT, PairwiseRow, content_id, unpack_text
from ray_app.scoring import (
    mean_scores,
    pairwise_scoring_units,
    pointwise_outcomes,
    score_records,
    score_rows,
    unscored_ids,
)
from ray_app.stages.context import Context
from ray_app.verdict import SCORES

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
        "prompts": {"judge": load_prompt(settings.judge_prompt).hash},
    } | ({"mode": "pointwise"} if settings.judging.mode == "pointwise" else {})


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
    benchmark = load_benchmark(spec, settings.evaluation.limit) if spec else heldout(context, iteration)
    if not benchmark.n:
        return StageResult(extra={"set": name, "headline": None})
    if benchmark.kind == "best_of":
        return run_best_of(context, directory, name, benchmark, engine, judge_name)
    judge = scored if settings.judging.mode == "pointwise" else voted
    result, outcomes, records = judge(context, directory, iteration, name, benchmark, engine, judge_name)
    summary = summarise(benchmark, outcomes, seed=settings.seed)
    write_verdicts(join(directory, "verdicts.jsonl"), records)
    change = against_before(context, benchmark, outcomes, iteration, name)
    if change:
        summary["against_iteration_before"] = change
    write_json_atomic(join(directory, "summary.json"), summary)
    return result.with_extra({"set": name, "headline": headline(summary), "change": change})


Judged = tuple[StageResult, list[Outcome], Iterable[dict[str, Any]]]


def voted(
    context: Context,
    directory: str,
    iteration: int,
    name: str,
    benchmark: Benchmark,
    engine: EngineSettings,
    judge_name: str,
) -> Judged:
    """Both orders of every row, by votes: the result, an outcome a row, and the lines of the verdict file."""
    settings = context.settings
    result = judge_rows(
        context.runner,
        units=units_of(name, benchmark.rows),
        directory=directory,
        program=program(settings, iteration, judge_name),
        engine=engine,
        iteration=iteration,
    )
    votes = settings.evaluation.votes
    tallies, lost = results_of(directory, benchmark.rows)
    outcomes = outcomes_of(benchmark, tallies, votes=votes, seed=settings.seed, quarantined=lost)
    ids, lost = _ids(benchmark, lost)
    return result, outcomes, verdict_records(ids, tallies, votes, lost)


def scored(
    context: Context,
    directory: str,
    iteration: int,
    name: str,
    benchmark: Benchmark,
    engine: EngineSettings,
    judge_name: str,
) -> Judged:
    """The same in pointwise mode: the response with the higher mean score is the verdict."""
    settings = context.settings
    result = score_rows(
        context.runner,
        units=pairwise_scoring_units(name, benchmark.rows),
        directory=directory,
        program=scoring_program(settings, iteration, judge_name),
        engine=engine,
        iteration=iteration,
    )
    means = mean_scores(directory)
    ids, lost = _ids(benchmark, unscored_ids(directory))
    return result, pointwise_outcomes(benchmark, means, settings.seed), score_records(ids, means, lost)


def run_best_of(
    context: Context, directory: str, name: str, benchmark: Benchmark, engine: EngineSettings, judge_name: str
) -> StageResult:
    """RewardBench 2: four responses by letter, Ties (in pointwise mode all) by ratings."""
    settings, part = context.settings, context.settings.evaluation
    judge = Judge(
        engine,
        load_prompt(settings.judge_prompt),
        settings.judging.stop_after_verdict,
        settings.judging.mode,
        judge_name,
    )
    named = dataclasses.replace(benchmark, name=name)
    result = best_of.judge_rows(context.runner, named, directory, judge, part.generation, part.votes, settings.seed)
    answers = best_of.answers_in(directory, named, settings.seed)
    summary = summarise_best_of(named, best_of_outcomes(named, answers), settings.seed)
    lines = ({"id": identity, **answer} for identity, answer in answers.items())
    write_verdicts(join(directory, "verdicts.jsonl"), lines)
    write_json_atomic(join(directory, "summary.json"), summary)
    score = {"value": summary["overall"]["score"], "n": summary["n"], "low": None, "high": None}
    figures = {"accuracy": score, "unparsed_rate": summary["overall"]["unparsed_rate"]}
    return result.with_extra({"set": name, "headline": figures, "change": None})


def _ids(benchmark: Benchmark, lost: dict[str, str]) -> tuple[list[str], dict[str, str]]:
    """Every id in the order of the file, and {id: reason} of those that could not be judged."""
    ids = [row.id for row in benchmark.rows] + [fault.id for fault in benchmark.faulty]
    return ids, lost | {fault["id"]: fault["reason"] for fault in benchmark.quarantined}


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


def scoring_program(settings: IterateSettings, iteration: int, judge_name: str) -> ScoreProgram:
    """Greedy scores, or the mean of several, as the settings say."""
    part = settings.evaluation
    return ScoreProgram(
        prompt=load_prompt(settings.judge_prompt),
        sampling=sampling_from(part.generation, settings.judging.stop_after_verdict, SCORES),
        samples=part.votes,
        judge=judge_name,
        run_seed=settings.seed,
        iteration=iteration,
        stage=STAGE,
        key=("benchmark", "id"),
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
