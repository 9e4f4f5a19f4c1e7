"""Before a commit, what closed shards hold is compared with what was asked."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from ray_app.errors import InputError
from ray_app.run import storage
from ray_app.run.shards import ShardWriter, shard_files
from ray_app.run.tally import Tally, tally

SCHEMA = pa.schema([("pair_id", pa.string()), ("order", pa.int32()), ("kind", pa.string()), ("tokens", pa.int32())])
KEY = ("pair_id", "order")


def write(place: str, *names: str, kind: str = "own", lost: tuple[str, ...] = (), stage: str = "judgments") -> None:
    """Units of two rows each, and quarantined ones, as one attempt leaves them."""
    with ShardWriter(place, SCHEMA) as writer:
        for name in names:
            writer.add([{"pair_id": name, "order": 0, "kind": kind, "tokens": 5}] * 2)
        writer.quarantine([{"id": f"{name}:0", "stage": stage, "reason": "empty", "detail": ""} for name in lost])


def test_all_attempts_are_counted(place: str) -> None:
    write(place, "a", "b", lost=("x",))
    write(place, "c", lost=("y", "z"))
    assert tally(place, KEY, ["tokens"]) == Tally(6, {"empty": 3}, {"tokens": 30}, units=6)


def test_an_empty_or_missing_folder_counts_nothing(place: str) -> None:
    assert tally(place, KEY, ["tokens"]) == Tally(sums={"tokens": 0})
    assert tally(place, KEY).fault(0) is None


def test_units_of_one_column_need_no_text(place: str) -> None:
    write(place, "a", "b")
    assert tally(place, ["order"]).units == 1


def test_rows_from_elsewhere_are_no_units_of_the_stage(place: str) -> None:
    write(place, "a", "b", kind="given", lost=("p", "q"), stage="given_pairs")
    write(place, "a", lost=("x",))
    found = tally(place, KEY, where=("kind", "own"), stage="judgments")
    assert found == Tally(6, {"empty": 3}, units=2)


def test_a_unit_in_two_shards_is_found(place: str) -> None:
    write(place, "a", "b")
    write(place, "b", "c")
    found = tally(place, KEY)
    assert (found.units, found.doubled) == (3, ("b:0",))
    assert "1 unit(s) have rows in two shards ('b:0' among them)" in str(found.fault(3))


def test_a_quarantined_unit_that_has_rows_counts_once(place: str) -> None:
    """A row that an engine failed over may be asked again."""
    write(place, lost=("a", "b"))
    write(place, "a", lost=("b",))
    found = tally(place, KEY)
    assert (found.units, found.superseded) == (2, ("a:0",))


@pytest.mark.parametrize(
    ("units", "words"),
    [
        (10, None),
        (7, "7 of 10 units are in closed shards or quarantined, so 3 are lost; nothing is committed"),
        (11, "11 units are in closed shards or quarantined, but only 10 were asked for"),
    ],
)
def test_fewer_or_more_than_asked_is_a_fault(units: int, words: Any) -> None:
    fault = Tally(units=units).fault(10)
    assert fault is None if words is None else str(fault).startswith(words)


def test_a_shard_that_vanished_is_noticed(place: str) -> None:
    write(place, "a", "b")
    write(place, "c")
    storage.remove(shard_files(place)[0])
    assert str(tally(place, KEY).fault(3)).startswith("1 of 3 units")


def test_a_damaged_shard_is_named(place: str) -> None:
    write(place, "a")
    storage.write_bytes_atomic(shard_files(place)[0], b"PAR1")
    with pytest.raises(InputError, match=r"shard-00000\.parquet is not a whole Parquet file"):
        tally(place, KEY)
