"""Instructions: read, filter, dedup, decontaminate, and where asked classify (paper, section 4.1).

Sources: JSONL or Parquet (local or any fsspec URI), or `hf:DATASET_ID`; the columns are settings. WildChat's
nested `conversation` gives its first user turn. Every dropped row is in the quarantine table with its reason.
"""

from __future__ import annotations

import dataclasses
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ray_app.base.model_files import model_identity
from ray_app.base.ngrams import Contamination
from ray_app.base.prompts import transcript
from ray_app.base.schema import INSTRUCTIONS, content_id, pack_text, split_of, unpack_text
from ray_app.base.texts import as_text, conversation_fault
from ray_app.benchmarks.files import clean_row, read_rows
from ray_app.engine.base import sampling_from
from ray_app.errors import InputError, first_line
from ray_app.generation.programs.classify import ClassifyProgram
from ray_app.generation.runner import Job, StageResult, table_rows
from ray_app.loop.config import InstructionSettings, IterateSettings
from ray_app.loop.stages.context import Context
from ray_app.loop.stages.inputs import Inputs
from ray_app.run.folder import RunFolder
from ray_app.run.shards import ShardWriter, column_values, row_counts
from ray_app.run.storage import content_hash

STAGE = "instructions"
CHECKED = "decontaminated_against"


def settings_of(settings: IterateSettings, inputs: Inputs) -> dict[str, Any]:
    """What the stage's fingerprint covers."""
    covered: dict[str, Any] = {
        "instructions": settings.instructions.model_dump(mode="json"),
        "limit": settings.limit,
    }
    if settings.instructions.classify:
        covered["prompts"] = {"classify": inputs.prompt("classify").hash}
        covered["generator"] = settings.generator.identity(settings.generator.model)
    else:
        covered["instructions"].pop("classify_sampling")
    return covered


def inputs_of(settings: IterateSettings) -> dict[str, str]:
    """Content hashes of the input files, and the model that classifies; a dataset id stands for itself."""
    source = settings.instructions.source
    classifier = {"generator": model_identity(settings.generator.model)} if settings.instructions.classify else {}
    return {source: source if source.startswith("hf:") else content_hash(source)} | classifier


def run(context: Context) -> StageResult:
    """Write instructions/ and return its numbers. Raises InputError for a fault of the source file."""
    settings = context.settings
    directory = context.folder.stage_dir(STAGE)
    classify = settings.instructions.classify
    target = directory if not classify else context.folder.join(directory, "candidates")
    result = _write_candidates(context, target).with_extra({CHECKED: checked_benchmarks(settings)})
    if not classify:
        return result
    classified = context.runner.run(
        Job(
            stage=STAGE,
            directory=directory,
            schema=INSTRUCTIONS,
            key=("instruction_id",),
            source=context.dataset(target),
            total=table_rows(target),
            program=classify_program(settings, context.inputs),
            engine=settings.generator,
            role="generator",
        )
    )
    dropped = Counter(result.quarantined) + Counter(classified.quarantined)
    whole = dataclasses.replace(classified, rows_in=result.rows_in, quarantined=dict(dropped))
    return whole.with_extra(result.extra)


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
        grams = Contamination(settings.instructions.decontamination.ngram)
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
    context.folder.clear(directory)
    reader = Reader(settings.instructions, _contamination(settings, context.inputs))
    started, kept = time.monotonic(), 0
    with ShardWriter(directory, INSTRUCTIONS) as writer:
        for row, fault in reader.rows(read_source(settings.instructions)):
            if fault is not None:
                writer.quarantine([fault])
            elif row is not None:
                writer.add([row])
                kept += 1
                if kept == settings.limit:
                    break
    rows, quarantined = row_counts(directory)
    if not rows:
        raise InputError(f"no instruction of {settings.instructions.source} is left: {quarantined}")
    return StageResult(reader.seen, rows, quarantined, seconds=time.monotonic() - started)


def _contamination(settings: IterateSettings, inputs: Inputs) -> Contamination:
    part = settings.instructions.decontamination
    grams = Contamination(part.ngram)
    if part.enabled:
        for name in settings.benchmarks:
            grams.add(transcript(text) for text in inputs.gold_set(name, None).instructions())
    return grams


def read_source(part: InstructionSettings) -> Iterator[dict[str, Any]]:
    """Raw rows of the source. Raises InputError naming file, line or column."""
    column = part.conversation_column or part.text_column
    if part.source.startswith("hf:"):
        return _read_hub(part, column)
    return read_rows(part.source, required={column: list if part.conversation_column else object})


def _read_hub(part: InstructionSettings, column: str) -> Iterator[dict[str, Any]]:
    import datasets

    identity = part.source.removeprefix("hf:")
    try:
        rows = datasets.load_dataset(identity, part.hf_config, split=part.hf_split, streaming=True)
        names = rows.column_names
    except Exception as fault:
        raise InputError(f"dataset {identity}: {first_line(fault)}") from fault
    if names and column not in names:
        raise InputError(f"dataset {identity} has no column {column!r}; it has {', '.join(names)}")
    try:
        yield from map(clean_row, rows)
    except InputError:
        raise
    except Exception as fault:  # the library raises its own, fsspec's, requests' and hub errors, in mid-stream too
        raise InputError(f"dataset {identity} broke off: {first_line(fault)}") from fault


class Reader:
    """Turns raw rows into instruction rows, or into quarantine rows with a reason.

    Equal content is quarantined as a duplicate; an id of the user's that occurs twice is a fault of the file.
    """

    def __init__(self, part: InstructionSettings, contamination: Contamination) -> None:
        self.part, self.contamination = part, contamination
        self.ids: set[int] = set()
        self.own_ids: set[int] = set()  # hashes: a million ids are to cost little memory
        self.seen = 0

    def rows(self, raw: Iterable[Mapping[str, Any]]) -> Iterator[tuple[dict[str, Any] | None, dict[str, str] | None]]:
        """(row, None) or (None, quarantine row) for each raw row. Raises InputError for an id that occurs twice."""
        for record in raw:
            self.seen += 1
            self._check_own_id(record)
            text, language = self._text(record)
            reason = self._fault(text, language, record)
            if reason is None:
                yield self._row(as_text(text), language, record), None
                continue
            name = str(record.get(self.part.id_column or "") or f"row {self.seen}")
            detail = str(text)[:500]
            yield None, {"id": name, "stage": STAGE, "reason": reason, "detail": detail}

    def _check_own_id(self, record: Mapping[str, Any]) -> None:
        own = record.get(self.part.id_column) if self.part.id_column else None
        if own is None:
            return
        known = int(content_id(str(own)), 16)
        if known in self.own_ids:
            column = f"column {self.part.id_column!r}"
            raise InputError(f"{self.part.source} row {self.seen} {column}: id {str(own)[:80]!r} occurs twice")
        self.own_ids.add(known)

    def _text(self, record: Mapping[str, Any]) -> tuple[Any, str | None]:
        if self.part.conversation_column is None:
            return record.get(self.part.text_column), name_in(record, "language")
        turns = record.get(self.part.conversation_column) or []
        first = next((t for t in turns if isinstance(t, Mapping) and t.get("role") == "user"), None)
        if first is None:
            return None, name_in(record, "language")
        return first.get("content"), name_in(first, "language") or name_in(record, "language")

    def _fault(self, text: Any, language: str | None, record: Mapping[str, Any]) -> str | None:
        if fault := conversation_fault(text):
            return "empty_instruction" if fault == "empty" else fault
        text = as_text(text)
        plain = transcript(text)
        if len(plain) > self.part.max_characters:
            return "too_long"
        if self.part.languages and language not in self.part.languages:
            return "language_filter"
        if self.part.drop_toxic and toxic(record, self.part.conversation_column):
            return "toxic"
        identity = int(content_id(text), 16)
        if identity in self.ids:
            return "duplicate"
        self.ids.add(identity)
        return "contaminated" if self.contamination.matches(plain) else None

    def _row(self, text: str | list[Any], language: str | None, record: Mapping[str, Any]) -> dict[str, Any]:
        identity = content_id(text)
        category = name_in(record, self.part.category_column) if self.part.category_column else None
        return {
            "instruction_id": identity,
            "text": pack_text(text),
            "source": str(record.get("source") or self.part.source),
            "category": category,
            "complexity": None,
            "language": language,
            "split": split_of(identity, self.part.heldout_fraction),
        }


def name_in(record: Mapping[str, Any], column: str) -> str | None:
    """A label of a row, a number (a class of `datasets`) as its digits; None where the column holds a list or the like,
    which no setting could ask for.
    """
    value = record.get(column)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return value if isinstance(value, str) else None


def toxic(record: Mapping[str, Any], conversation_column: str | None) -> bool:
    """WildChat's flags: the row's, or its first user turn's."""
    if record.get("toxic"):
        return True
    turns = record.get(conversation_column) if conversation_column else None
    first = next((t for t in turns or [] if isinstance(t, Mapping) and t.get("role") == "user"), {})
    return bool(first.get("toxic"))
