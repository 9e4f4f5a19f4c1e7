"""Pairs: one response pair with a known better side for each instruction (paper, section 3.2).

pairs/shard-*.parquet   made by the strategy, and taken from elsewhere
pairs/given.json        how many rows of each file or run were read and taken: written once they all are
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa

from ray_app.base.model_files import model_identity
from ray_app.base.schema import INSTRUCTIONS, PAIRS, content_id, unpack_text
from ray_app.base.settings_parts import at_defaults
from ray_app.errors import InputError, RunError
from ray_app.generation.couples import couples
from ray_app.generation.pair_gate import last_turn
from ray_app.generation.runner import Job, StageResult, table_rows
from ray_app.loop.config import IterateSettings
from ray_app.loop.given_pairs import GivenPairs, Judged, Splits, required_of, table_of_run
from ray_app.loop.pair_strategies import STRATEGIES, gate_of, prompts_of
from ray_app.loop.stages.context import Context
from ray_app.loop.stages.inputs import Inputs
from ray_app.run.shards import ShardWriter, row_counts, shard_files
from ray_app.run.storage import (
    content_hash,
    exists,
    filesystem,
    read_json,
    read_parquet,
    write_json_atomic,
    write_parquet_atomic,
)

log = logging.getLogger(__name__)
STAGE = "pairs"
GIVEN = "given.json"
NEWER = ("mirror", "heuristics", "max_length_ratio", "beyond_words", "source", "verdicts", "from_run", "ask_generator")
OF_GIVEN = (
    "source",
    "from_run",
    "heuristics",
    "max_length_ratio",
    "max_similarity",
)  # all that matters where none is made
BATCH = 256
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
    checked = {"decontaminate_generated": True} if settings.instructions.decontamination.generated else {}
    if not part.makes:
        named = {"verdicts"} if part.verdicts else set()
        return {"pairs": part.model_dump(mode="json", include=set(OF_GIVEN) | named), **checked}
    # What a run does without stays out, so that runs that were begun before it existed continue.
    unused = at_defaults(part, NEWER) | (set() if part.ask_generator else {"ask_sampling"})
    others = {name for strategy in STRATEGIES.values() for name in strategy.own} - STRATEGIES[part.strategy].own
    return {
        "seed": settings.seed,
        "pairs": part.model_dump(mode="json", exclude=unused | others),
        "generator": settings.generator.identity(settings.generator.model),
        "prompts": {name: inputs.prompt(name).hash for name in prompts_of(part)},
        **checked,
    }


def inputs_of(settings: IterateSettings) -> dict[str, str]:
    """The model that makes pairs, and content hashes of those made elsewhere. Raises InputError without any."""
    part = settings.pairs
    made = {"generator": model_identity(settings.generator.model)} if part.makes else {}
    files = {path: content_hash(path) for path in part.source if required_of(path, bool(part.verdicts))}
    files |= {path: content_hash(path) for path in part.verdicts}
    if part.from_run is None:
        return made | files
    table = table_of_run(part.from_run)
    if filesystem(table)[1].startswith(f"{filesystem(settings.run_uri)[1]}/"):
        raise InputError(f"pairs.from_run: {part.from_run} is the run itself")
    return made | files | {part.from_run: content_hash(table)}


def run(context: Context, iteration: int | None) -> StageResult:
    """Write pairs/ (or iter_NN/pairs/ when pairs are refreshed each iteration) and return its numbers."""
    if context.settings.pairs.makes:
        return with_given(context, context.runner.run(job(context, iteration)), iteration)
    started, directory = time.monotonic(), context.folder.stage_dir(STAGE, iteration)
    take_given(context, directory)
    rows, quarantined = row_counts(directory)
    if not rows:
        raise InputError(f"no pair of {', '.join(_sources(context.settings))} is left: {quarantined}")
    result = StageResult(0, rows, quarantined, seconds=time.monotonic() - started)
    return with_given(context, result, iteration)


def job(context: Context, iteration: int | None) -> Job:
    """What the runner is to do; pairs from elsewhere are taken first. Raises RunError where no two instructions are
    neighbours.
    """
    part = context.settings.pairs
    directory, strategy = context.folder.stage_dir(STAGE, iteration), STRATEGIES[part.strategy]
    take_given(context, directory)
    source = coupled_rows(context, directory) if strategy.coupled else context.folder.stage_dir("instructions")
    return Job(
        stage=STAGE,
        directory=directory,
        schema=PAIRS,
        key=strategy.key,
        source=context.dataset(source),
        total=table_rows(source),
        program=strategy.program(context.settings, context.inputs, iteration or 0),
        engine=context.settings.generator,
        role="generator",
        iteration=iteration,
        # A pair from elsewhere may be of an instruction of the run's: that one is not done by it.
        where=("strategy", part.strategy) if part.source else None,
    )


def take_given(context: Context, directory: str) -> None:
    """Write the pairs made elsewhere, before any is made here. Quick and deterministic: an attempt that was stopped
    within starts again from nothing.
    """
    settings, marker = context.settings, context.folder.join(directory, GIVEN)
    if not _sources(settings) or exists(marker):
        return
    context.clear(directory)
    own = _rows(context.folder.stage_dir("instructions"))
    inputs = context.inputs
    taken = GivenPairs(
        Splits(settings.instructions, own),
        inputs.contamination(),
        gate_of(settings.pairs),
        inputs.generated_contamination(),
        settings.pairs.verdicts,
    )
    counts = {}
    with context.writer(directory, PAIRS) as writer:
        for path in _sources(settings):
            counts[path] = _write(
                writer, taken.of_file(path) if path in settings.pairs.source else _of_run(taken, path)
            )
            log.info("%s: %d of %d pairs are taken", path, counts[path]["taken"], counts[path]["read"])
    write_json_atomic(marker, counts)


def with_given(context: Context, result: StageResult, iteration: int | None) -> StageResult:
    """`result` with what was read and taken of pairs made elsewhere."""
    if not _sources(context.settings):
        return result
    marker = context.folder.join(context.folder.stage_dir(STAGE, iteration), GIVEN)
    counts = dict(read_json(marker))
    read = sum(count["read"] for count in counts.values())
    return result.with_extra({"given": counts}).reading(read)


def _write(writer: ShardWriter, pairs: Iterable[Judged]) -> dict[str, int]:
    """Write rows and faults as they come, in batches: how many were read, and how many taken."""
    rows: list[dict[str, Any]] = []
    faults: list[dict[str, str]] = []
    read = taken = 0
    for row, fault in pairs:
        read += 1
        if fault is not None:
            faults.append(fault)
        elif row is not None:
            rows.append(row)
            taken += 1
        if len(rows) + len(faults) >= BATCH:
            writer.add(rows)
            writer.quarantine(faults)
            rows, faults = [], []
    writer.add(rows)
    writer.quarantine(faults)
    return {"read": read, "taken": taken}


def _of_run(taken: GivenPairs, uri: str) -> Iterator[Judged]:
    for file in shard_files(table_of_run(uri)):
        yield from taken.of_run(read_parquet(file).to_pylist())


def _sources(settings: IterateSettings) -> list[str]:
    """Where pairs are taken from: the other run first, whose ids stay as they are."""
    part = settings.pairs
    return [*([part.from_run] if part.from_run else []), *dict.fromkeys(part.source)]


def _rows(directory: str) -> Iterator[dict[str, Any]]:
    for file in shard_files(directory):
        yield from read_parquet(file).to_pylist()


def coupled_rows(context: Context, directory: str) -> str:
    """The folder of the couples of neighbours, written once: an attempt that goes on must couple as the one before."""
    folder = context.folder.join(directory, "couples")
    file = context.folder.join(folder, "shard-00000.parquet")
    if exists(file):
        return folder
    rows = list(_rows(context.folder.stage_dir("instructions")))
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
