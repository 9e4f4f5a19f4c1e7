"""Judgments: M(i-1) judges both orders of every training pair; rejection sampling marks what is kept (section 3.3).

In pointwise mode it scores both responses of every pair instead; the scores table then lies in the same place.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import ray.data

from ray_app.base.schema import TRAIN
from ray_app.errors import RunError
from ray_app.generation.runner import Job, StageResult
from ray_app.judging.judge import Judge
from ray_app.judging.settings import JudgingSettings
from ray_app.loop.config import IterateSettings
from ray_app.loop.stages.context import Context
from ray_app.loop.stages.inputs import Inputs
from ray_app.run.shards import column_values, null_count

STAGE = "judgments"
LIGHT = 0.01  # CPUs of a step between two stages
READERS = 2  # processes that turn pairs into units: light work, and every process costs a second to start


def settings_of(settings: IterateSettings, inputs: Inputs, judge: Mapping[str, Any]) -> dict[str, Any]:
    """What the stage's fingerprint covers. `judge` is the identity of the engine that judges."""
    return {
        "seed": settings.seed,
        "judging": settings.judging.model_dump(mode="json", exclude=uncovered(settings.judging))
        | {"stop_after_verdict": settings.stop_after_verdict},
        "judge": judge,
        "prompts": {"judge": inputs.prompt(settings.protocol.prompt_setting).hash},
    }


def uncovered(part: JudgingSettings) -> set[str]:
    """What the fingerprint leaves out: what is decided later, in the training set, and a newer setting that changes
    nothing, so that runs that were begun before it existed continue.
    """
    return {"balance", "max_draws", "min_pass_rate"} | ({"min_explanation"} if part.min_explanation == 0 else set())


def run(context: Context, iteration: int, judge: Judge) -> StageResult:
    """Write iter_NN/judgments/ and return its numbers. `judge` is M(iteration - 1); before a second training it is the
    checkpoint of the first, whose judgments have seeds of their own.
    """
    total = units_in(context.settings, context.pairs_dir(iteration))
    result = context.runner.run(job(context, iteration, judge, total))
    return with_numbers(context, result, iteration, judge)


def job(context: Context, iteration: int, judge: Judge, total: int) -> Job:
    """What the runner is to do with the pairs that are in closed shards by now."""
    settings = context.settings
    protocol, stage = settings.protocol, context.folder.stage_name(STAGE)
    return Job(
        stage=stage,
        directory=context.folder.stage_dir(STAGE, iteration),
        schema=protocol.pair_schema,
        key=protocol.pair_key,
        source=units_of(settings, context.dataset(context.pairs_dir(iteration))),
        total=total,
        program=protocol.sampling_program(judge, settings.judging, settings.seed, iteration, stage),
        engine=judge.engine,
        role="judge",
        iteration=iteration,
    )


def units_of(settings: IterateSettings, pairs: ray.data.Dataset) -> ray.data.Dataset:
    """The training pairs among `pairs` as units of judging. Takes no CPU of its own: engines may leave none."""
    protocol = settings.protocol

    def units(row: dict[str, Any]) -> list[dict[str, Any]]:
        return protocol.pair_units(row) if row["split"] == TRAIN else []

    return pairs.flat_map(units, num_cpus=LIGHT, concurrency=READERS)


def units_in(settings: IterateSettings, directory: str) -> int:
    """Units of judging in a table of pairs. Raises RunError when there is none."""
    training = training_rows(directory)
    if not training:
        raise RunError(f"no pair to judge: {directory} holds none of the split {TRAIN!r}")
    return training * settings.protocol.units_per_pair


def training_rows(directory: str) -> int:
    """Rows of a table that are not held out."""
    return sum(split == TRAIN for split in column_values(directory, "split"))


def with_numbers(context: Context, result: StageResult, iteration: int, judge: Judge) -> StageResult:
    """`result` and what is particular to judgments."""
    directory = context.folder.stage_dir(STAGE, iteration)
    samples, unparsed = null_count(directory, context.settings.protocol.verdict_column)
    rate = unparsed / samples if samples else None
    result = result.with_extra(
        context.since_checkpoint(judge.engine.model, result)
    )  # where nothing evaluated it before
    return result.with_extra({"samples": samples, "unparsed": unparsed, "unparsed_rate": rate})
