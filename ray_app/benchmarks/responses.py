"""Files of several responses a prompt, for ranking: {"id"?, "instruction", "responses": [...]}, JSONL or Parquet.

`prompt` is another name of `instruction`. A row that cannot be ranked is told with its reason; the others go on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ray_app.base.schema import PairwiseRow, Text, content_id
from ray_app.base.texts import as_text, text_fault
from ray_app.benchmarks.base import ID, TEXT, Benchmark, Ids
from ray_app.benchmarks.files import Types, columns_of, read_numbered
from ray_app.benchmarks.store import RowStore
from ray_app.errors import InputError

OPTIONAL: Mapping[str, Types] = {"id": ID}


@dataclass(frozen=True)
class Candidates:
    """The responses to one prompt, or why they cannot be ranked."""

    id: str
    instruction: Text
    responses: tuple[Text, ...]
    fault: str | None = None


def read_candidates(path: str, limit: int | None = None) -> Iterator[Candidates]:
    """The rows of a file, streamed. Raises InputError for faults of the file."""
    named = "prompt" if "prompt" in columns_of(path) else "instruction"
    ids = Ids()
    for index, numbered in enumerate(read_numbered(path, {named: TEXT, "responses": list}, OPTIONAL)):
        if index == limit:
            return
        row = numbered.row
        texts = row[named], row["responses"]
        own = row.get("id")
        yield candidates(ids.derived(content_id(texts)) if own is None else ids.own(own, numbered.where), *texts)


def candidates(identity: str, instruction: Any, responses: Any) -> Candidates:
    """One checked row."""
    fault = _fault(instruction, responses)
    if fault:
        return Candidates(identity, "", (), fault)
    return Candidates(identity, as_text(instruction), tuple(as_text(response) for response in responses))


def _fault(instruction: Any, responses: Any) -> str | None:
    if fault := text_fault(instruction):
        return f"{fault}_instruction" if fault == "empty" else fault
    if not isinstance(responses, Sequence) or len(responses) < 2:
        return "too_few_responses"
    found = next((fault for response in responses if (fault := text_fault(response))), None)
    return f"{found}_response" if found == "empty" else found


@dataclass(frozen=True)
class Shape:
    """One row of a ranking file without its texts: which couples of it are judged, in the order of the benchmark."""

    id: str
    count: int
    couples: tuple[tuple[int, int], ...]
    fault: str | None


def as_pairs(
    path: str, limit: int | None, couples: Callable[[int], Sequence[tuple[int, int]]]
) -> tuple[Benchmark, list[Shape]]:
    """The couples of every row as response pairs, and the rows' shapes. Raises InputError where none can be ranked."""
    store, shapes = RowStore(), []
    for row in read_candidates(path, limit):
        asked = tuple(couples(len(row.responses))) if row.fault is None else ()
        shapes.append(Shape(row.id, len(row.responses), asked, row.fault))
        for pair in pairs_of(row, asked):
            store.append(pair)
    if not len(store):
        reasons = sorted({shape.fault or "" for shape in shapes})
        raise InputError(f"{path} holds no row to rank: {', '.join(reasons) or 'it is empty'}")
    return Benchmark("ranking", store.freeze(), len(shapes), source=path), shapes


def pairs_of(row: Candidates, couples: Sequence[tuple[int, int]]) -> Iterator[PairwiseRow]:
    """One pair a couple; its id is that of the row with the two indices."""
    group = content_id(row.instruction)
    for first, second in couples:
        texts = row.instruction, row.responses[first], row.responses[second]
        yield PairwiseRow(f"{row.id}/{first}-{second}", "", *texts, None, group)
