"""Rows of a benchmark in a memory-mapped Arrow file: 100,000 long rows cost little memory.

It is a `Sequence[PairwiseRow]`: index it, iterate it, ask its length. The file is unlinked as soon as it is
mapped, so it goes away with the process.
"""

from __future__ import annotations

import bisect
import itertools
import os
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any, overload

import pyarrow as pa

from ray_app.base.schema import PairwiseRow, pack_text, unpack_text

ROWS = pa.schema(
    [
        ("id", pa.string()),
        ("subset", pa.string()),
        ("instruction", pa.large_string()),
        ("response_a", pa.large_string()),
        ("response_b", pa.large_string()),
        ("label", pa.string()),
        ("group", pa.string()),
        ("mirror", pa.string()),
        ("similarity", pa.float64()),
    ]
)
PLAIN = ("id", "subset", "label", "group", "mirror", "similarity")
_BATCH_ROWS, _BATCH_CHARACTERS = 512, 4_000_000


class RowStore(Sequence[PairwiseRow]):
    """Append rows, `freeze()`, then read. Not for use from several threads while it is being written."""

    def __init__(self) -> None:
        handle, self._path = tempfile.mkstemp(suffix=".arrow", prefix="benchmark-")
        os.close(handle)
        self._sink = pa.OSFile(self._path, "wb")
        self._writer = pa.ipc.new_file(self._sink, ROWS)
        self._buffer: list[dict[str, Any]] = []
        self._characters = 0
        self._ends: list[int] = []  # running row count at the end of each batch
        self._reader: Any = None

    def append(self, row: PairwiseRow) -> None:
        texts = {name: pack_text(getattr(row, name)) for name in ("instruction", "response_a", "response_b")}
        self._buffer.append({name: getattr(row, name) for name in PLAIN} | texts)
        self._characters += sum(map(len, texts.values()))
        if len(self._buffer) >= _BATCH_ROWS or self._characters >= _BATCH_CHARACTERS:
            self._flush()

    def freeze(self) -> RowStore:
        """Close the file and map it; nothing can be appended after."""
        self._flush()
        self._writer.close()
        self._sink.close()
        self._reader = pa.ipc.open_file(pa.memory_map(self._path))
        os.unlink(self._path)
        return self

    def __len__(self) -> int:
        return (self._ends[-1] if self._ends else 0) + len(self._buffer)

    @overload
    def __getitem__(self, index: int) -> PairwiseRow: ...
    @overload
    def __getitem__(self, index: slice) -> list[PairwiseRow]: ...
    def __getitem__(self, index: int | slice) -> PairwiseRow | list[PairwiseRow]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        position = index + len(self) if index < 0 else index
        if not 0 <= position < len(self):
            raise IndexError(index)
        batch = bisect.bisect_right(self._ends, position)
        start = self._ends[batch - 1] if batch else 0
        return _row(self._reader.get_batch(batch).slice(position - start, 1).to_pylist()[0])

    def __iter__(self) -> Iterator[PairwiseRow]:
        batches = (self._reader.get_batch(i).to_pylist() for i in range(len(self._ends)))
        return map(_row, itertools.chain.from_iterable(batches))

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (list(self),)

    def __del__(self) -> None:
        if self._reader is None and os.path.exists(self._path):
            os.unlink(self._path)

    def _flush(self) -> None:
        if self._buffer:
            self._ends.append(len(self))
            self._writer.write_batch(pa.RecordBatch.from_pylist(self._buffer, schema=ROWS))
            self._buffer, self._characters = [], 0


def _row(stored: dict[str, Any]) -> PairwiseRow:
    texts: dict[str, Any] = {name: unpack_text(stored[name]) for name in ("instruction", "response_a", "response_b")}
    return PairwiseRow(**{name: stored[name] for name in PLAIN}, **texts)


def _restored(rows: list[PairwiseRow]) -> RowStore:
    store = RowStore()
    for row in rows:
        store.append(row)
    return store.freeze()
