"""Pairs: one response pair with a known better side for each instruction (paper, section 3.2)."""

from __future__ import annotations

import logging
from typing import Any

import pyarrow as pa

from ray_app.base.schema import INSTRUCTIONS, PAIRS, content_id, unpack_text
from ray_app.engine.base import sampling_from
from ray_app.errors import RunError
from ray_app.generation.couples import couples
from ray_app.generation.pair_gate import Gate, last_turn
from ray_app.generation.programs.neighbour import STRATEGY as NEIGHBOUR
from ray_app.generation.programs.neighbour import NeighbourProgram
from ray_app.generation.programs.pair import PairProgram
from ray_app.generation.runner import Job, StageResult, table_rows
from ray_app.loop.config import IterateSettings
from ray_app.loop.stages.context import Context
from ray_app.loop.stages.inputs import Inputs
from ray_app.run.storage import exists, list_files, read_parquet, write_parquet_atomic

log = logging.getLogger(__name__)
STAGE = "pairs"
NEWER = ("mirror", "heuristics", "max_length_ratio")
COUPLES = pa.schema(
    [
        ("group", pa.string()),
        ("similarity", pa.float64()),
        ("first", pa.struct(list(INSTRUCTIONS))),
        ("second", pa.struct(list(INSTRUCTIONS))),
    ]
)


def settings_of(settings: IterateSettings, inputs: Inputs) -> dict[str, Any]:
    """What the stage's fingerprint covers."""
    part = settings.pairs
    # What a run does without stays out, so that runs that were begun before it existed continue.
    unused = {name for name in NEWER if getattr(part, name) == part.__class__.model_fields[name].default}
    if part.strategy != NEIGHBOUR:
        unused |= {"neighbours"}
    return {
        "seed": settings.seed,
        "pairs": part.model_dump(mode="json", exclude=unused),
        "generator": settings.generator.identity(settings.generator.model),
        "prompts": {name: inputs.prompt(name).hash for name in prompts_of(settings)},
    }


def prompts_of(settings: IterateSettings) -> tuple[str, ...]:
    """Names of the prompts that the strategy shows."""
    part = settings.pairs
    if part.strategy == NEIGHBOUR:
        return ()
    if part.strategy == "worse_response":
        return ("worse_response",)
    return ("modify_and_respond",) if part.format == "one_call" else ("modify_instruction",)


def run(context: Context, iteration: int | None) -> StageResult:
    """Write pairs/ (or iter_NN/pairs/ when pairs are refreshed each iteration) and return its numbers."""
    return context.runner.run(job(context, iteration))


def job(context: Context, iteration: int | None) -> Job:
    """What the runner is to do. Raises RunError where no two instructions are neighbours."""
    directory, coupled = context.folder.stage_dir(STAGE, iteration), context.settings.pairs.strategy == NEIGHBOUR
    source = coupled_rows(context, directory) if coupled else context.folder.stage_dir("instructions")
    return Job(
        stage=STAGE,
        directory=directory,
        schema=PAIRS,
        key=("group",) if coupled else ("instruction_id",),
        source=context.dataset(source),
        total=table_rows(source),
        program=program(context.settings, context.inputs, iteration or 0),
        engine=context.settings.generator,
        role="generator",
        iteration=iteration,
    )


def coupled_rows(context: Context, directory: str) -> str:
    """The folder of the couples of neighbours, written once: an attempt that goes on must couple as the one before."""
    folder = context.folder.join(directory, "couples")
    file = context.folder.join(folder, "shard-00000.parquet")
    if exists(file):
        return folder
    files = list_files(context.folder.stage_dir("instructions"), "shard-*.parquet")
    rows = [row for name in files for row in read_parquet(name).to_pylist()]
    limits = context.settings.pairs.neighbours
    asked = [last_turn(unpack_text(row["text"])) for row in rows]
    found = couples(asked, [row["split"] for row in rows], limits.min_similarity, limits.max_similarity)
    if not found:
        raise RunError(
            f"no two of {len(rows)} instructions are neighbours: pairs.neighbours asks for a similarity of "
            f"{limits.min_similarity:g} to {limits.max_similarity:g}"
        )
    log.info("%d couples of neighbours among %d instructions; the others have none", len(found), len(rows))
    made = [
        {
            "group": content_id([rows[couple.first]["instruction_id"], rows[couple.second]["instruction_id"]]),
            "similarity": couple.similarity,
            "first": rows[couple.first],
            "second": rows[couple.second],
        }
        for couple in found
    ]
    write_parquet_atomic(pa.Table.from_pylist(made, schema=COUPLES), file)
    return folder


def program(settings: IterateSettings, inputs: Inputs, iteration: int) -> PairProgram | NeighbourProgram:
    """The program of these settings."""
    part = settings.pairs
    gate = Gate(part.max_similarity, part.heuristics, part.max_length_ratio)
    if part.strategy == NEIGHBOUR:
        return NeighbourProgram(
            sampling=sampling_from(part.sampling),
            gate=gate,
            generator=settings.generator.model,
            run_seed=settings.seed,
            iteration=iteration,
        )
    return PairProgram(
        strategy=part.strategy,
        one_call=part.format == "one_call",
        modify=inputs.prompt("modify_instruction"),
        modify_and_respond=inputs.prompt("modify_and_respond"),
        worse=inputs.prompt("worse_response"),
        sampling=sampling_from(part.sampling),
        modify_sampling=sampling_from(part.modify_sampling or part.sampling),
        gate=gate,
        mirror=part.mirror,
        generator=settings.generator.model,
        run_seed=settings.seed,
        iteration=iteration,
    )
