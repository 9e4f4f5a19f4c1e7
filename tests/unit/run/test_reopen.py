"""Rows that failed in an engine leave the quarantine; those that failed of their own stay."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
from closed import closed_units

from ray_app.run.reopen import reopen, supersede
from ray_app.run.shards import ShardWriter, row_counts, shard_files

SCHEMA = pa.schema([("id", pa.string())])


def entry(name: str, reason: str, stage: str = "judgments") -> dict[str, str]:
    return {"id": name, "stage": stage, "reason": reason, "detail": ""}


def written(place: str, *shards: list[dict[str, str]]) -> None:
    with ShardWriter(place, SCHEMA) as writer:
        writer.add([{"id": "answered"}])
        for faults in shards:
            for fault in faults:
                writer.quarantine([fault])
            writer.close()


def test_only_faults_of_engines_are_asked_again(tmp_path: Path) -> None:
    place = str(tmp_path)
    written(place, [entry("a", "engine_error"), entry("b", "too_long")], [entry("c", "engine_error")])
    assert reopen(place, {"engine_error"}) == 2
    assert closed_units(place, ["id"]) == {"answered", "b"}
    assert row_counts(place) == (1, {"too_long": 1})
    assert len(shard_files(place, "quarantine")) == 1, "an empty shard is removed"
    with ShardWriter(place, SCHEMA) as writer:  # a later attempt
        writer.add([{"id": "a"}])
        writer.quarantine([entry("c", "refused")])
    assert closed_units(place, ["id"]) == {"answered", "a", "b", "c"}


def test_where_nothing_failed_in_an_engine_nothing_is_written(tmp_path: Path) -> None:
    written(str(tmp_path), [entry("b", "too_long")])
    before = {file: file.read_bytes() for file in tmp_path.iterdir()}
    assert reopen(str(tmp_path), {"engine_error"}) == 0
    assert {file: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_faults_of_another_stage_of_the_folder_stay(tmp_path: Path) -> None:
    written(str(tmp_path), [entry("a", "engine_error", "pairs"), entry("b", "engine_error", "judgments")])
    assert reopen(str(tmp_path), {"engine_error"}, "judgments") == 1
    assert closed_units(str(tmp_path), ["id"]) == {"answered", "a"}


def test_entries_of_units_that_have_rows_leave_the_quarantine(tmp_path: Path) -> None:
    place = str(tmp_path)
    written(place, [entry("answered", "empty"), entry("b", "too_long")], [entry("answered", "empty", "given")])
    assert supersede(place, ["answered"], "judgments") == 1
    assert row_counts(place) == (1, {"too_long": 1, "empty": 1})
    assert supersede(place, ["answered"]) == 1
    assert row_counts(place) == (1, {"too_long": 1})
    assert len(shard_files(place, "quarantine")) == 1
