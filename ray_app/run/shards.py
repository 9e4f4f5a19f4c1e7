"""The one shard writer: rows become durable in closed shards of at most 256 rows or 30 s (design §4).

    shard-00000.parquet        rows of the declared schema; all rows of a unit lie in one shard
    quarantine-00000.parquet   {id, stage, reason, detail}

A shard appears whole or not at all. On resume the keys of closed shards are read and their units skipped.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import pyarrow as pa

from ray_app.run.storage import join, list_files, read_parquet, write_parquet_atomic
from ray_app.schema import QUARANTINE

MAX_ROWS, MAX_SECONDS = 256, 30.0
SHARD, QUARANTINED = "shard", "quarantine"


class _Shards:
    """Numbered shards of one schema. A unit is never split; a shard closes before it would exceed `max_rows`."""

    def __init__(
        self, directory: str, prefix: str, schema: pa.Schema, max_rows: int, fence: Callable[[], None]
    ) -> None:
        self.directory, self.prefix, self.schema = directory, prefix, schema
        self.max_rows, self.fence = max_rows, fence
        self.rows: list[dict[str, Any]] = []
        existing = list_files(directory, f"{prefix}-*.parquet")
        self.next = 1 + max((int(f.rsplit("-", 1)[1].split(".")[0]) for f in existing), default=-1)
        self.written = 0

    def add(self, rows: Sequence[dict[str, Any]]) -> None:
        for row in rows:
            if set(row) != set(self.schema.names):
                wrong = sorted(set(row) ^ set(self.schema.names))
                raise ValueError(f"a row of {self.directory} has other columns than its schema: {wrong}")
        if self.rows and len(self.rows) + len(rows) > self.max_rows:
            self.close()
        self.rows.extend(rows)
        if len(self.rows) >= self.max_rows:
            self.close()

    def close(self) -> None:
        if not self.rows:
            return
        self.fence()
        table = pa.Table.from_pylist(self.rows, schema=self.schema)
        write_parquet_atomic(table, join(self.directory, f"{self.prefix}-{self.next:05d}.parquet"))
        self.next += 1
        self.written += len(self.rows)
        self.rows = []


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
    ) -> None:
        self.shards = _Shards(directory, SHARD, schema, max_rows, fence)
        self.faults = _Shards(directory, QUARANTINED, QUARANTINE, max_rows, fence)
        self.max_seconds, self.clock = max_seconds, clock
        self.opened: float | None = None

    def add(self, rows: Sequence[dict[str, Any]]) -> None:
        """Rows of one unit. Raises ValueError for a missing or unknown column."""
        self.shards.add(rows)
        self.tick()

    def quarantine(self, faults: Sequence[dict[str, Any]]) -> None:
        """Quarantined rows {id, stage, reason, detail}."""
        self.faults.add(faults)
        self.tick()

    def tick(self) -> None:
        """Close what has been open for `max_seconds`."""
        if not self.shards.rows and not self.faults.rows:
            self.opened = None
        elif self.opened is None:
            self.opened = self.clock()
        elif self.clock() - self.opened >= self.max_seconds:
            self.close()

    def close(self) -> None:
        self.shards.close()
        self.faults.close()
        self.opened = None

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self.close()


def closed_units(directory: str, key: Sequence[str]) -> set[str]:
    """Every unit in a closed shard, and every quarantined one: what a resumed stage does not ask for again."""
    done: set[str] = set()
    for file in list_files(directory, f"{SHARD}-*.parquet"):
        columns = read_parquet(file, columns=key)
        keys = zip(*(columns.column(name).to_pylist() for name in key), strict=True)
        done.update(":".join(str(part) for part in parts) for parts in keys)
    for file in list_files(directory, f"{QUARANTINED}-*.parquet"):
        done.update(read_parquet(file, columns=["id"]).column("id").to_pylist())
    return done


def row_counts(directory: str) -> tuple[int, dict[str, int]]:
    """(rows, quarantined rows by reason) of the closed shards: what stage.json reports, however many attempts it took."""
    rows = sum(read_parquet(f, columns=[]).num_rows for f in list_files(directory, f"{SHARD}-*.parquet"))
    reasons: Counter[str] = Counter()
    for file in list_files(directory, f"{QUARANTINED}-*.parquet"):
        reasons.update(read_parquet(file, columns=["reason"]).column("reason").to_pylist())
    return rows, dict(reasons)


def column_sums(directory: str, columns: Iterable[str]) -> dict[str, int]:
    """Sums of integer columns over the closed shards: tokens spent, over all attempts."""
    names = list(columns)
    sums = dict.fromkeys(names, 0)
    for file in list_files(directory, f"{SHARD}-*.parquet"):
        table = read_parquet(file, columns=names)
        for name in names:
            sums[name] += sum(v or 0 for v in table.column(name).to_pylist())
    return sums


def column_values(directory: str, column: str) -> Iterator[Any]:
    """One column of the closed shards, shard by shard."""
    for file in list_files(directory, f"{SHARD}-*.parquet"):
        yield from read_parquet(file, columns=[column]).column(column).to_pylist()
