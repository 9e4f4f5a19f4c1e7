"""Rows that show a judge the same texts are judged once, and share the votes. Pure, but for the spool.

Several human votes on one pair (MT-Bench) are such rows; so are rows that have the responses the other way round, whose
order `ab` is the first row's `ba`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import pyarrow as pa

from ray_app.base.schema import AB, BA, PairwiseRow, pair_key
from ray_app.run.storage import join, list_files, read_parquet, write_parquet_atomic

SPOOL_ROWS = 256
TURN = {AB: BA, BA: AB, "a": "b", "b": "a"}  # orders; sides of pointwise judging


class Source(NamedTuple):
    """The row whose votes a row shares (its own, as a rule), and whether that one has the responses turned round."""

    id: str
    turned: bool = False

    def order(self, order: str) -> str:
        """The order (pointwise: side) of the source that shows what `order` of the row shows; and the other way."""
        return TURN[order] if self.turned else order


def with_sources(rows: Iterable[PairwiseRow]) -> Iterator[tuple[PairwiseRow, Source]]:
    """Every row with the row whose votes it shares."""
    first: dict[str, tuple[str, bool]] = {}
    for row in rows:
        key, turned = pair_key(row)
        identity, first_turned = first.setdefault(key, (row.id, turned))
        yield row, Source(identity, turned != first_turned)


def sources_of(rows: Iterable[PairwiseRow]) -> dict[str, Source]:
    """{id: under which id, and which way round, its texts were judged}."""
    return {row.id: source for row, source in with_sources(rows)}


def spool(units: Iterable[dict[str, Any]], directory: str, schema: pa.Schema) -> int:
    """Write units as Parquet files of at most 256 rows and return how many units there are.

    An input of any size then streams. Deterministic, so a resumed run writes the same files again.
    """
    stream, total = iter(units), 0
    for index in itertools.count():
        chunk = list(itertools.islice(stream, SPOOL_ROWS))
        if not chunk:
            return total
        total += len(chunk)
        table = pa.Table.from_pylist(chunk, schema=schema)
        write_parquet_atomic(table, join(directory, f"shard-{index:05d}.parquet"))
    return total


def row_of(unit: str, key: Sequence[str]) -> str:
    """The row's id in the name of a unit (`schema.unit_id`). Names of sets and orders hold no colon; ids may."""
    identity = unit.split(":", 1)[-1]
    return identity.rsplit(":", 1)[0] if "order" in key else identity


def quarantined_units(directory: str) -> Iterator[tuple[str, str]]:
    """(unit, reason) of what could not be judged."""
    for file in list_files(directory, "quarantine-*.parquet"):
        for fault in read_parquet(file, columns=["id", "reason"]).to_pylist():
            yield fault["id"], fault["reason"]
