"""Judgments: M(i-1) judges both orders of every training pair; rejection sampling marks what is kept (section 3.3).

In pointwise mode it scores both responses of every pair instead; the scores table then lies in the same place.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import ray.data

from ray_app.base.schema import TRAIN
from ray_app.base.settings_parts import at_defaults
from ray_app.engine.base import sampling_from
from ray_app.errors import RunError
from ray_app.generation.programs.asking import AskedFirst, Asking
from ray_app.generation.runner import Job, StageResult
from ray_app.judging.judge import Judge
from ray_app.judging.settings import JudgingSettings
from ray_app.loop.config import IterateSettings
from ray_app.loop.stages.context import Context
from ray_app.loop.stages.inputs import Inputs
from ray_app.run.shards import column_values, null_count

STAGE = "judgments"
NEWER = ("min_explanation", "must_name", "must_agree", "ask_pairs")
LIGHT = 0.01  # CPUs of a step between two stages
READERS = 2  # processes that turn pairs into units: light work, and every process costs a second to start


def settings_of(settings: IterateSettings, inputs: Inputs, judge: Mapping[str, Any]) -> dict[str, Any]:
    """What the stage's fingerprint covers. `judge` is the identity of the engine that judges."""
    part = settings.judging
    asked = {"ask_sampling": settings.pairs.ask_sampling.model_dump(mode="json")} if part.ask_pairs else {}
    shown = {"judge": settings.protocol.prompt_setting} | (
        {"check_response": "check_response"} if part.ask_pairs else {}
    )
    return {
        "seed": settings.seed,
        "judging": part.model_dump(mode="json", exclude=uncovered(part))
        | asked
        | {"stop_after_verdict": settings.stop_after_verdict},
        "judge": judge,
        "prompts": {name: inputs.prompt(setting).hash for name, setting in shown.items()},
    }


def uncovered(part: JudgingSettings) -> set[str]:
    """What the fingerprint leaves out: what is decided later, in the training set, and a newer setting that changes
    nothing, so that runs that were begun before it existed continue.
    """
    return {"balance", "max_draws", "min_pass_rate"} | at_defaults(part, NEWER)


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
    program: Any = protocol.sampling_program(judge, settings.judging, settings.seed, iteration, stage)
    if settings.judging.ask_pairs:
        asking = Asking(context.inputs.prompt("check_response"), sampling_from(settings.pairs.ask_sampling))
        program = AskedFirst(program, asking, settings.seed, iteration, stage)
    return Job(
        stage=stage,
        directory=context.folder.stage_dir(STAGE, iteration),
        schema=protocol.pair_schema,
        key=protocol.pair_key,
        source=units_of(settings, context.dataset(context.pairs_dir(iteration))),
        total=total,
        program=program,
        engine=judge.engine,
        role="judge",
        iteration=iteration,
    )


def units_of(settings: IterateSettings, pairs: ray.data.Dataset) -> ray.data.Dataset:
    """The training pairs among `pairs` as units of judging. Takes no CPU of its own: engines may leave none."""
    protocol, asked = settings.protocol, settings.judging.ask_pairs

    def units(row: dict[str, Any]) -> list[dict[str, Any]]:
        about = {name: row[name] for name in ("rejected", "modified_instruction")} if asked else {}
        return [{**unit, **about} for unit in protocol.pair_units(row)] if row["split"] == TRAIN else []

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
