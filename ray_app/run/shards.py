"""The one shard writer: rows become durable in closed shards of at most 256 rows or 30 s (docs/run_folder.md).

    shard-00000.parquet        rows of the declared schema; all rows of a unit lie in one shard
    quarantine-00000.parquet   {id, stage, reason, detail}

A shard appears whole or not at all, and never in place of another: a driver that stood still and wakes when a new one
holds the run cannot take the new one's rows away. Its file names the driver that wrote it (`owner_of`). On resume the
keys of closed shards are read and their units skipped; for that a unit has rows or is quarantined, never both. One
writer a folder (the lease sees to it).
"""

from __future__ import annotations

import logging
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ray_app.base.schema import QUARANTINE
from ray_app.errors import InputError
from ray_app.run.shard_settings import MAX_ROWS, MAX_SECONDS
from ray_app.run.storage import (
    count_rows,
    create_bytes,
    join,
    list_files,
    parquet_bytes,
    read_bytes,
    read_metadata,
    read_parquet,
    remove,
    remove_temporaries,
)
from ray_app.run.units import unit_names

log = logging.getLogger(__name__)
SHARD, QUARANTINED = "shard", "quarantine"
OWNER = "ste.owner"  # in a shard's Parquet metadata: `owner` of the lease it was written under


class _Shards:
    """Numbered shards of one schema. A unit is never split; a shard closes before it would exceed `max_rows`."""

    def __init__(
        self, directory: str, prefix: str, schema: pa.Schema, max_rows: int, fence: Callable[[], None], owner: str
    ) -> None:
        self.directory, self.prefix, self.schema = directory, prefix, schema
        self.max_rows, self.fence, self.owner = max_rows, fence, owner
        self.tables: list[pa.Table] = []
        self.rows = 0
        self.opened: float | None = None
        numbers = [int(file.removesuffix(".parquet").rsplit("-", 1)[1]) for file in shard_files(directory, prefix)]
        self.next = 1 + max(numbers, default=-1)

    def add(self, rows: Sequence[Mapping[str, Any]], now: float) -> None:
        if not rows:
            return
        unit = self._checked(rows)
        if self.rows and self.rows + unit.num_rows > self.max_rows:
            self.close()
        self.tables.append(unit)
        self.rows += unit.num_rows
        self.opened = now if self.opened is None else self.opened
        if self.rows >= self.max_rows:
            self.close()

    def close(self) -> None:
        if not self.rows:
            return
        table = pa.concat_tables(self.tables).combine_chunks()
        data = parquet_bytes(table.replace_schema_metadata({OWNER: self.owner} if self.owner else None))
        self.fence()  # the last thing before the write: a driver that lost the run must not add to it
        self._create(join(self.directory, f"{self.prefix}-{self.next:05d}.parquet"), data)
        self.next += 1
        self.tables, self.rows, self.opened = [], 0, None

    def _create(self, uri: str, data: bytes) -> None:
        """The fence is no lock: a driver may stand still between it and the write, for as long as its machine does."""
        try:
            create_bytes(uri, data)
        except FileExistsError:
            self.fence()  # says so where it is this driver that has lost the run
            if read_bytes(uri) == data:  # written before, and the store's answer was lost
                return
            # It came after this writer had looked what there was, so its units are asked again: both would be double.
            log.warning("%s was written late by the writer before this one, and is replaced", uri)
            remove(uri)
            create_bytes(uri, data)
        except OSError:
            self.fence()  # the holder of the run clears away what it finds half-written: then that is the cause
            raise

    def _checked(self, rows: Sequence[Mapping[str, Any]]) -> pa.Table:
        """Checked unit by unit, so that a bad unit is named and costs no other."""
        names = set(self.schema.names)
        where = f"a row for {self.directory} ({self.schema.names[0]} {rows[0].get(self.schema.names[0])!r})"
        for row in rows:
            wrong = [f"misses column {name!r}" for name in self.schema.names if name not in row]
            wrong += [f"has the unknown column {name!r}" for name in row if name not in names]
            if wrong:
                raise ValueError(f"{where} {' and '.join(wrong)}")
        try:
            return pa.Table.from_pylist(list(rows), schema=self.schema)
        except (pa.ArrowException, ValueError, TypeError) as fault:
            raise ValueError(f"{where} does not fit its schema: {fault}") from fault


class ShardWriter:
    """Rows and quarantined rows of one stage. A context manager: a clean end closes, an error leaves no shard."""

    def __init__(
        self,
        directory: str,
        schema: pa.Schema,
        *,
        max_rows: int = MAX_ROWS,
        max_seconds: float = MAX_SECONDS,
        clock: Callable[[], float] = time.monotonic,
        fence: Callable[[], None] = lambda: None,
        owner: str = "",
    ) -> None:
        """`fence` raises once another driver holds the run; `owner` is what shards say of who wrote them."""
        remove_temporaries(directory)
        self.shards = _Shards(directory, SHARD, schema, max_rows, fence, owner)
        self.faults = _Shards(directory, QUARANTINED, QUARANTINE, max_rows, fence, owner)
        self.max_seconds, self.clock = max_seconds, clock

    def add(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Rows of one unit. Raises ValueError naming a missing or unknown column, or a value of another type."""
        self.shards.add(rows, self.clock())
        self.tick()

    def quarantine(self, faults: Sequence[Mapping[str, Any]]) -> None:
        """Quarantined rows {id, stage, reason, detail}; the id is that of the unit."""
        self.faults.add(faults, self.clock())
        self.tick()

    @property
    def open_shard(self) -> int | None:
        """The number of the shard that takes rows, or None while all rows are in closed ones."""
        return self.shards.next if self.shards.rows else None

    def tick(self) -> None:
        """Close what has been open for `max_seconds`."""
        now = self.clock()
        for part in (self.shards, self.faults):
            if part.opened is not None and now - part.opened >= self.max_seconds:
                part.close()

    def close(self) -> None:
        """Close what is open; the writer can go on. Where one of the two cannot be closed, the other one still is."""
        try:
            self.shards.close()
        finally:
            self.faults.close()

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self.close()


def shard_files(directory: str, prefix: str = SHARD) -> list[str]:
    """Closed shards, in the order of their numbers. Raises InputError for a file that only looks like one (a copy
    by hand would double its rows).
    """
    files = list_files(directory, f"{prefix}-*.parquet")
    for file in files:
        if not re.fullmatch(rf"{prefix}-\d{{5,}}\.parquet", file.rsplit("/", 1)[-1]):
            raise InputError(f"{file} is no shard of this run: remove it")
    return sorted(files, key=lambda file: (len(file), file))


def owner_of(file: str) -> str | None:
    """The driver that wrote a shard: `owner` of its lease. None where the file says nothing of it (older runs)."""
    return read_metadata(file).get(OWNER)


def begun(directory: str) -> bool:
    """Whether a stage has closed any shard."""
    return any(shard_files(directory, prefix) for prefix in (SHARD, QUARANTINED))


def closed_names(
    directory: str, key: Sequence[str], where: tuple[str, str] | None = None, stage: str | None = None
) -> Iterator[pa.ChunkedArray]:
    """Every unit in a closed shard (its key columns joined as `schema.unit_id` does), and every quarantined one: what
    a resumed stage does not ask for again. `where`: of rows with this value in this column alone; `stage`: of faults of
    this stage alone. File by file; names may come more than once. Raises InputError naming a file that is damaged.
    """
    for file in shard_files(directory):
        columns = read_parquet(file, columns=[*key, where[0]] if where else key)
        yield unit_names(those(columns, where), key)
    for file in shard_files(directory, QUARANTINED):
        faults = read_parquet(file, columns=["id", "stage"] if stage else ["id"])
        yield those(faults, ("stage", stage) if stage else None).column("id")


def those(table: pa.Table, where: tuple[str, str] | None) -> pa.Table:
    """The rows with a value in a column, (column, value); None: all."""
    return table.filter(pc.equal(table.column(where[0]), where[1])) if where else table


def row_counts(directory: str) -> tuple[int, dict[str, int]]:
    """(rows, quarantined rows by reason) of the closed shards: what stage.json reports, over all attempts."""
    rows = sum(count_rows(file) for file in shard_files(directory))
    reasons: Counter[str] = Counter()
    for file in shard_files(directory, QUARANTINED):
        reasons.update(read_parquet(file, columns=["reason"]).column("reason").to_pylist())
    return rows, dict(reasons)


def null_count(directory: str, column: str) -> tuple[int, int]:
    """Rows of the closed shards, and those of them that have nothing in a column."""
    columns = [read_parquet(file, columns=[column]).column(column) for file in shard_files(directory)]
    return sum(len(one) for one in columns), sum(one.null_count for one in columns)


def column_values(directory: str, column: str) -> Iterator[Any]:
    """One column of the closed shards, shard by shard."""
    for file in shard_files(directory):
        yield from read_parquet(file, columns=[column]).column(column).to_pylist()
