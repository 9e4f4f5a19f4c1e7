"""Judging pairs with gold labels inside the loop: shared by the evaluation stage and by checkpoint selection.

Both ask the same program of the same pairs, so a candidate's score is what evaluation would report.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ray_app.benchmarks import Benchmark
from ray_app.benchmarks.registry import is_file, split_spec
from ray_app.config import IterateSettings
from ray_app.engine.settings import EngineSettings
from ray_app.judging import judge_rows, results_of, units_of, verdict_records
from ray_app.metrics import Outcome, Ratio, outcomes_of
from ray_app.metrics.accuracy import accuracy
from ray_app.metrics.first_position import first_position_rate
from ray_app.programs.judge import JudgeProgram
from ray_app.programs.score import ScoreProgram
from ray_app.prompts import load_prompt
from ray_app.run.storage import content_hash
from ray_app.runner import Runner, StageResult, sampling_from
from ray_app.scoring import (
    pairwise_scoring_units,
    pointwise_outcomes,
    score_records,
    score_rows,
    scores_of,
)
from ray_app.train.selection import Score
from ray_app.verdict import SCORES

STAGE = "evaluation"
VALIDATION = "validation"


@dataclass(frozen=True)
class JudgedSet:
    """One set, judged: the runner's numbers, an outcome a row, and the lines of its verdict file."""

    result: StageResult
    outcomes: list[Outcome]
    records: Iterator[dict[str, Any]]
    unjudged: dict[str, str]  # {id: reason} of rows lost on the way through the engine


def judge_set(
    runner: Runner,
    settings: IterateSettings,
    benchmark: Benchmark,
    *,
    name: str,
    directory: str,
    engine: EngineSettings,
    iteration: int,
    judge_name: str,
) -> JudgedSet:
    """Judge every row with the judge that `engine` serves, in the run's mode; a second call continues."""
    where: dict[str, Any] = {"directory": directory, "engine": engine, "iteration": iteration}
    ids = [row.id for row in benchmark.rows] + [fault.id for fault in benchmark.faulty]
    lost = {fault["id"]: fault["reason"] for fault in benchmark.quarantined}
    if settings.judging.mode == "pointwise":
        units = pairwise_scoring_units(name, benchmark.rows)
        result = score_rows(runner, units=units, program=scoring_program(settings, iteration, judge_name), **where)
        means, faults = scores_of(directory, benchmark.rows)
        records = score_records(ids, means, faults | lost)
        return JudgedSet(result, pointwise_outcomes(benchmark, means, settings.seed), records, faults)
    pairs = units_of(name, benchmark.rows)
    result = judge_rows(runner, units=pairs, program=program(settings, iteration, judge_name), **where)
    votes = settings.evaluation.votes
    tallies, faults = results_of(directory, benchmark.rows)
    outcomes = outcomes_of(benchmark, tallies, votes=votes, seed=settings.seed, quarantined=faults)
    return JudgedSet(result, outcomes, verdict_records(ids, tallies, votes, faults | lost), faults)


def program(settings: IterateSettings, iteration: int, judge_name: str) -> JudgeProgram:
    """Greedy, or votes, as the settings say."""
    part = settings.evaluation
    return JudgeProgram(
        prompt=load_prompt(settings.judge_prompt),
        sampling=sampling_from(part.generation, settings.stop_after_verdict),
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
        sampling=sampling_from(part.generation, settings.stop_after_verdict, SCORES),
        samples=part.votes,
        judge=judge_name,
        run_seed=settings.seed,
        iteration=iteration,
        stage=STAGE,
        key=("benchmark", "id"),
    )


def covered(settings: IterateSettings) -> dict[str, Any]:
    """The settings that decide what a judge answers on a set: part of a fingerprint."""
    part = settings.evaluation
    return {
        "evaluation": part.model_dump(mode="json", include={"limit", "votes", "generation", "early_stop"}),
        "judging": {"stop_after_verdict": settings.stop_after_verdict},
        "prompts": {"judge": load_prompt(settings.judge_prompt).hash},
    } | ({"mode": "pointwise"} if settings.judging.mode == "pointwise" else {})


def inputs_of(spec: str | None) -> dict[str, str]:
    """Content hash of a set's file; a hub id stands for itself. Raises InputError for what is neither."""
    if not spec:
        return {}
    _, path = split_spec(spec)
    return {spec: content_hash(path) if is_file(path) else spec}


def score_of(step: int, outcomes: Sequence[Outcome]) -> Score:
    """Validation of one candidate. With no parsed verdict its positions count as wholly uneven (1.0)."""
    right, first = _value(accuracy(outcomes)), _value(first_position_rate(outcomes))
    return Score(step, 0.0 if right is None else right, 1.0 if first is None else first, len(outcomes))


def _value(ratio: Ratio) -> float | None:
    total = float(ratio.denominator.sum())
    return float(ratio.numerator.sum()) / total if total else None
