"""Pairs: one response pair with a known better side for each instruction (paper, section 3.2)."""

from __future__ import annotations

from typing import Any

from ray_app.base.schema import PAIRS
from ray_app.engine.base import sampling_from
from ray_app.generation.programs.pair import PairProgram
from ray_app.generation.runner import Job, StageResult, table_rows
from ray_app.loop.config import IterateSettings
from ray_app.loop.stages.context import Context
from ray_app.loop.stages.inputs import Inputs

STAGE = "pairs"


def settings_of(settings: IterateSettings, inputs: Inputs) -> dict[str, Any]:
    """What the stage's fingerprint covers."""
    names = (
        ("worse_response",)
        if settings.pairs.strategy == "worse_response"
        else ("modify_and_respond",)
        if settings.pairs.format == "one_call"
        else ("modify_instruction",)
    )
    return {
        "seed": settings.seed,
        "pairs": settings.pairs.model_dump(mode="json"),
        "generator": settings.generator.identity(settings.generator.model),
        "prompts": {name: inputs.prompt(name).hash for name in names},
    }


def run(context: Context, iteration: int | None) -> StageResult:
    """Write pairs/ (or iter_NN/pairs/ when pairs are refreshed each iteration) and return its numbers."""
    return context.runner.run(job(context, iteration))


def job(context: Context, iteration: int | None) -> Job:
    """What the runner is to do."""
    instructions = context.folder.stage_dir("instructions")
    return Job(
        stage=STAGE,
        directory=context.folder.stage_dir(STAGE, iteration),
        schema=PAIRS,
        key=("instruction_id",),
        source=context.dataset(instructions),
        total=table_rows(instructions),
        program=program(context.settings, context.inputs, iteration or 0),
        engine=context.settings.generator,
        role="generator",
        iteration=iteration,
    )


def program(settings: IterateSettings, inputs: Inputs, iteration: int) -> PairProgram:
    """The pair program of these settings."""
    part = settings.pairs
    return PairProgram(
        strategy=part.strategy,
        one_call=part.format == "one_call",
        modify=inputs.prompt("modify_instruction"),
        modify_and_respond=inputs.prompt("modify_and_respond"),
        worse=inputs.prompt("worse_response"),
        sampling=sampling_from(part.sampling),
        modify_sampling=sampling_from(part.modify_sampling or part.sampling),
        max_similarity=part.max_similarity,
        generator=settings.generator.model,
        run_seed=settings.seed,
        iteration=iteration,
    )
