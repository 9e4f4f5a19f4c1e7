"""Rows of a source as instructions: what is read, and why a row is not kept (paper, section 4.1)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import pyarrow as pa

from ray_app.base.ngrams import Contamination
from ray_app.base.prompts import transcript
from ray_app.base.schema import ANSWERED, INSTRUCTIONS, content_id, pack_text, split_of
from ray_app.base.texts import as_text, conversation_fault
from ray_app.benchmarks.files import clean_row, read_rows
from ray_app.errors import InputError, first_line
from ray_app.generation.instruction_choice import NearDuplicates
from ray_app.loop.data_settings import InstructionSettings

STAGE = "instructions"


def schema_of(part: InstructionSettings) -> pa.Schema:
    """Of the instructions table: with answers where they are read, else as it was before there were any."""
    return INSTRUCTIONS if part.answer_column is None else ANSWERED


def read_source(part: InstructionSettings) -> Iterator[dict[str, Any]]:
    """Raw rows of the source. Raises InputError naming file, line or column."""
    column = part.conversation_column or part.text_column
    if part.source.startswith("hf:"):
        return _read_hub(part, column)
    answers = {} if part.answer_column is None else {part.answer_column: object}
    return read_rows(part.source, required={column: list if part.conversation_column else object, **answers})


def _read_hub(part: InstructionSettings, column: str) -> Iterator[dict[str, Any]]:
    import datasets

    identity = part.source.removeprefix("hf:")
    try:
        rows = datasets.load_dataset(identity, part.hf_config, split=part.hf_split, streaming=True)
        names = rows.column_names
    except Exception as fault:
        raise InputError(f"dataset {identity}: {first_line(fault)}") from fault
    for wanted in (column, part.answer_column):
        if names and wanted is not None and wanted not in names:
            raise InputError(f"dataset {identity} has no column {wanted!r}; it has {', '.join(names)}")
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
        self.similar = NearDuplicates(part.near_similarity) if part.near_duplicates != "keep" else None

    def rows(
        self, raw: Iterable[Mapping[str, Any]], limit: int | None = None
    ) -> Iterator[tuple[dict[str, Any] | None, dict[str, str] | None]]:
        """(row, None) or (None, quarantine row) for each raw row, until `limit` rows are kept. Where near-duplicates
        share a split, kept rows come last: their clusters are known once all are read. Raises InputError for an id
        that occurs twice.
        """
        kept: list[dict[str, Any]] = []
        count = 0
        for record in raw:
            self.seen += 1
            self._check_own_id(record)
            text, language = self._text(record)
            reason = self._fault(text, language, record)
            if reason is not None:
                name = str(record.get(self.part.id_column or "") or f"row {self.seen}")
                yield None, {"id": name, "stage": STAGE, "reason": reason, "detail": str(text)[:500]}
                continue
            row = self._row(as_text(text), language, record)
            count += 1
            if self.part.near_duplicates == "one_split":
                kept.append(row)
            else:
                yield row, None
            if count == limit:
                break
        yield from ((row, None) for row in self._together(kept))

    def _together(self, rows: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """`rows` with the splits of their clusters."""
        clusters = self.similar.clusters() if self.similar and rows else {}
        for row in rows:
            yield {**row, "split": split_of(clusters[row["instruction_id"]], self.part.heldout_fraction)}

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
        if shared := self.contamination.fault(plain):
            return shared
        drop = self.part.near_duplicates == "drop"
        repeated = self.similar.add(plain, content_id(text), if_new=drop) if self.similar else set()
        return "near_duplicate" if drop and repeated else None

    def _row(self, text: str | list[Any], language: str | None, record: Mapping[str, Any]) -> dict[str, Any]:
        identity = content_id(text)
        category = name_in(record, self.part.category_column) if self.part.category_column else None
        answer = self.part.answer_column
        return {
            "instruction_id": identity,
            "text": pack_text(text),
            "source": str(record.get("source") or self.part.source),
            "category": category,
            "complexity": None,
            "language": language,
            "split": split_of(identity, self.part.heldout_fraction),
            **({"answer": answer_in(record, answer)} if answer else {}),
        }


def name_in(record: Mapping[str, Any], column: str) -> str | None:
    """A label of a row, a number (a class of `datasets`) as its digits; None where the column holds a list or the like,
    which no setting could ask for.
    """
    value = record.get(column)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return value if isinstance(value, str) else None


def answer_in(record: Mapping[str, Any], column: str) -> str | None:
    """A known answer: a text, or a number as it is written; None for what is neither."""
    value = record.get(column)
    return str(value) if isinstance(value, (str, int, float)) and not isinstance(value, bool) else None


def toxic(record: Mapping[str, Any], conversation_column: str | None) -> bool:
    """WildChat's flags: the row's, or its first user turn's."""
    if record.get("toxic"):
        return True
    turns = record.get(conversation_column) if conversation_column else None
    first = next((t for t in turns or [] if isinstance(t, Mapping) and t.get("role") == "user"), {})
    return bool(first.get("toxic"))
