"""Instructions: read, filter, dedup, decontaminate, and where asked classify (paper, section 4.1).

Sources: JSONL or Parquet (local or any fsspec URI), or `hf:DATASET_ID`; the columns are settings. WildChat's
nested `conversation` gives its first user turn. Every dropped row is in the quarantine table with its reason.
"""

from __future__ import annotations

import dataclasses
import time
from collections import Counter
from collections.abc import Iterable
from typing import Any

from ray_app.base.model_files import model_identity
from ray_app.base.ngrams import Contamination
from ray_app.base.prompts import transcript
from ray_app.base.schema import unpack_text
from ray_app.engine.base import sampling_from
from ray_app.errors import InputError
from ray_app.generation.instruction_choice import chosen
from ray_app.generation.programs.classify import ClassifyProgram
from ray_app.generation.runner import Job, StageResult, table_rows
from ray_app.loop.config import IterateSettings
from ray_app.loop.data_settings import InstructionSettings
from ray_app.loop.instruction_rows import Reader, read_source, schema_of
from ray_app.loop.stages.context import Context
from ray_app.loop.stages.inputs import Inputs
from ray_app.run.folder import RunFolder
from ray_app.run.shards import column_values, row_counts
from ray_app.run.storage import content_hash, list_files, read_parquet

STAGE = "instructions"
CHECKED = "decontaminated_against"


def settings_of(settings: IterateSettings, inputs: Inputs) -> dict[str, Any]:
    """What the stage's fingerprint covers."""
    covered: dict[str, Any] = {
        "instructions": settings.instructions.model_dump(mode="json"),
        "limit": settings.limit,
    }
    for name in newer(settings.instructions):
        covered["instructions"].pop(name)
    covered["instructions"]["decontamination"].pop("generated")  # of pairs
    if settings.instructions.decontamination.min_words is None:
        covered["instructions"]["decontamination"].pop("min_words")
    if settings.instructions.classify:
        covered["prompts"] = {"classify": inputs.prompt("classify").hash}
        covered["generator"] = settings.generator.identity(settings.generator.model)
    else:
        covered["instructions"].pop("classify_sampling")
    return covered


def newer(part: InstructionSettings) -> set[str]:
    """Settings that change nothing here: left out, so that runs which were begun before they existed continue."""
    similar = {"near_duplicates", "near_similarity"} if part.near_duplicates == "keep" else set()
    unread = {"answer_column"} if part.answer_column is None else set()
    return similar | unread | ({"count", "balance_categories"} if part.count is None else set())


def inputs_of(settings: IterateSettings) -> dict[str, str]:
    """Content hashes of the input files, and the model that classifies; a dataset id stands for itself."""
    source = settings.instructions.source
    classifier = {"generator": model_identity(settings.generator.model)} if settings.instructions.classify else {}
    return {source: source if source.startswith("hf:") else content_hash(source)} | classifier


def run(context: Context) -> StageResult:
    """Write instructions/ and return its numbers. Raises InputError for a fault of the source file."""
    settings = context.settings
    directory = context.folder.stage_dir(STAGE)
    classify, count = settings.instructions.classify, settings.instructions.count
    whole = directory if count is None else context.folder.join(directory, "whole")
    target = whole if not classify else context.folder.join(directory, "candidates")
    result = _write_candidates(context, target).with_extra({CHECKED: checked_benchmarks(settings)})
    if classify:
        result = _classified(context, target, whole, result)
    return result if count is None else _chosen(context, whole, directory, result)


def _chosen(context: Context, whole: str, directory: str, result: StageResult) -> StageResult:
    """The `count` instructions that are kept, written anew: quick and deterministic."""
    settings = context.settings
    context.clear(directory)
    rows = list(zip(*(column_values(whole, name) for name in ("instruction_id", "category")), strict=True))
    kept = chosen(rows, settings.instructions.count or 0, settings.seed, settings.instructions.balance_categories)
    with context.writer(directory, schema_of(settings.instructions)) as writer:
        for file in list_files(whole, "shard-*.parquet"):
            writer.add([row for row in read_parquet(file).to_pylist() if row["instruction_id"] in kept])
    left_out = {"not_chosen": len(rows) - len(kept)}
    return dataclasses.replace(result, rows_out=len(kept)).with_extra(left_out)


def _classified(context: Context, target: str, directory: str, result: StageResult) -> StageResult:
    """The candidates with their categories and complexities."""
    settings = context.settings
    classified = context.runner.run(
        Job(
            stage=STAGE,
            directory=directory,
            schema=schema_of(settings.instructions),
            key=("instruction_id",),
            source=context.dataset(target),
            total=table_rows(target),
            program=classify_program(settings, context.inputs),
            engine=settings.generator,
            role="generator",
        )
    )
    dropped = Counter(result.quarantined) + Counter(classified.quarantined)
    both = dataclasses.replace(classified, rows_in=result.rows_in, quarantined=dict(dropped))
    return both.with_extra(result.extra)


def checked_benchmarks(settings: IterateSettings) -> list[str]:
    """The benchmarks that instructions are checked against."""
    return list(settings.benchmarks) if settings.instructions.decontamination.enabled else []


def late_overlap(
    settings: IterateSettings, inputs: Inputs, folder: RunFolder, checked: Iterable[str]
) -> dict[str, int]:
    """{benchmark configured after the instructions were made: how many of them share an n-gram with it}.

    More benchmarks never invalidate a run, so what was not dropped then is at least counted now.
    """
    late = [name for name in checked_benchmarks(settings) if name not in set(checked)]
    found: dict[str, int] = {}
    for name in late:
        part = settings.instructions.decontamination
        grams = Contamination(part.ngram, part.min_words)
        grams.add(transcript(text) for text in inputs.gold_set(name, None).instructions())
        texts = column_values(folder.stage_dir(STAGE), "text")
        found[name] = sum(grams.matches(transcript(unpack_text(text))) for text in texts)
    return found


def classify_program(settings: IterateSettings, inputs: Inputs) -> ClassifyProgram:
    part = settings.instructions
    return ClassifyProgram(
        prompt=inputs.prompt("classify"),
        sampling=sampling_from(part.classify_sampling),
        keep_categories=part.keep_categories,
        min_complexity=part.min_complexity,
        run_seed=settings.seed,
    )


def _write_candidates(context: Context, directory: str) -> StageResult:
    settings = context.settings
    # Reading is cheap and deterministic: an interrupted read starts again from nothing.
    context.clear(directory)
    reader = Reader(settings.instructions, context.inputs.contamination())
    started = time.monotonic()
    with context.writer(directory, schema_of(settings.instructions)) as writer:
        for row, fault in reader.rows(read_source(settings.instructions), settings.limit):
            if fault is not None:
                writer.quarantine([fault])
            elif row is not None:
                writer.add([row])
    rows, quarantined = row_counts(directory)
    if not rows:
        raise InputError(f"no instruction of {settings.instructions.source} is left: {quarantined}")
    return StageResult(reader.seen, rows, quarantined, seconds=time.monotonic() - started)
