"""Judgments: M(i-1) judges both orders of every training pair; rejection sampling marks what is kept (section 3.3).

In pointwise mode it scores both responses of every pair instead; the scores table then lies in the same place.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import ray.data

from ray_app.config import IterateSettings
from ray_app.engine.settings import EngineSettings
from ray_app.errors import RunError
from ray_app.programs.judge import JudgeProgram
from ray_app.programs.rows import pair_units, score_unit
from ray_app.programs.score import ScoreProgram
from ray_app.prompts import load_prompt
from ray_app.run.shards import column_values
from ray_app.runner import Job, StageResult, sampling_from
from ray_app.schema import JUDGMENTS, SCORES, TRAIN
from ray_app.stages.context import Context
from ray_app.verdict import SCORES as SCORE_VERDICTS

STAGE = "judgments"
LIGHT = 0.01  # CPUs of a step between two stages
READERS = 2  # processes that turn pairs into units: light work, and every process costs a second to start


def settings_of(settings: IterateSettings, judge: Mapping[str, Any]) -> dict[str, Any]:
    """What the stage's fingerprint covers. `judge` is the identity of the engine that judges."""
    return {
        "seed": settings.seed,
        "judging": settings.judging.model_dump(mode="json", exclude={"balance"})
        | {"stop_after_verdict": settings.stop_after_verdict},
        "judge": judge,
        "prompts": {"judge": load_prompt(settings.judge_prompt).hash},
    }


def run(context: Context, iteration: int, engine: EngineSettings, judge_name: str) -> StageResult:
    """Write iter_NN/judgments/ and return its numbers. `engine` serves the judge M(iteration - 1)."""
    total = units_in(context.settings, context.pairs_dir(iteration))
    result = context.runner.run(job(context, iteration, engine, judge_name, total))
    return with_numbers(context, result, iteration)


def job(context: Context, iteration: int, engine: EngineSettings, judge_name: str, total: int) -> Job:
    """What the runner is to do with the pairs that are in closed shards by now."""
    pairwise = context.settings.judging.mode == "pairwise"
    return Job(
        stage=STAGE,
        directory=context.folder.stage_dir(STAGE, iteration),
        schema=JUDGMENTS if pairwise else SCORES,
        key=("pair_id", "order") if pairwise else ("pair_id",),
        source=units_of(context.settings, context.dataset(context.pairs_dir(iteration))),
        total=total,
        program=program(context.settings, iteration, judge_name),
        engine=engine,
        role="judge",
        iteration=iteration,
    )


def units_of(settings: IterateSettings, pairs: ray.data.Dataset) -> ray.data.Dataset:
    """The training pairs among `pairs` as units of judging. Takes no CPU of its own: engines may leave none."""
    pairwise = settings.judging.mode == "pairwise"

    def units(row: dict[str, Any]) -> list[dict[str, Any]]:
        if row["split"] != TRAIN:
            return []
        return list(pair_units(row)) if pairwise else [score_unit(row)]

    return pairs.flat_map(units, num_cpus=LIGHT, concurrency=READERS)


def units_in(settings: IterateSettings, directory: str) -> int:
    """Units of judging in a table of pairs. Raises RunError when there is none."""
    training = training_rows(directory)
    if not training:
        raise RunError(f"no pair to judge: {directory} holds none of the split {TRAIN!r}")
    return training * units_per_pair(settings)


def training_rows(directory: str) -> int:
    """Rows of a table that are not held out."""
    return sum(split == TRAIN for split in column_values(directory, "split"))


def units_per_pair(settings: IterateSettings) -> int:
    return 2 if settings.judging.mode == "pairwise" else 1


def with_numbers(context: Context, result: StageResult, iteration: int) -> StageResult:
    """`result` and what is particular to judgments."""
    pairwise = context.settings.judging.mode == "pairwise"
    directory = context.folder.stage_dir(STAGE, iteration)
    verdicts = list(column_values(directory, "verdict" if pairwise else "score"))
    unparsed = sum(verdict is None for verdict in verdicts)
    rate = unparsed / len(verdicts) if verdicts else None
    result = result.with_extra(context.since_checkpoint(iteration - 1, result))  # where nothing evaluated it before
    return result.with_extra({"samples": len(verdicts), "unparsed": unparsed, "unparsed_rate": rate})


def program(settings: IterateSettings, iteration: int, judge_name: str) -> JudgeProgram | ScoreProgram:
    """The judging program of these settings."""
    part = settings.judging
    common: dict[str, Any] = {
        "prompt": load_prompt(settings.judge_prompt),
        "mode": part.sampling,
        "samples": part.samples,
        "judge": judge_name,
        "run_seed": settings.seed,
        "iteration": iteration,
        "stage": STAGE,
    }
    if part.mode == "pointwise":
        sampling = sampling_from(part.generation, settings.stop_after_verdict, SCORE_VERDICTS)
        return ScoreProgram(**common, sampling=sampling, key=("pair_id",))
    sampling = sampling_from(part.generation, settings.stop_after_verdict)
    return JudgeProgram(**common, sampling=sampling, key=("pair_id", "order"))
