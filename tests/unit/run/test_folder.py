"""Paths of docs/run_folder.md, and the commit of a stage."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import pytest
from run_records import print_of, record_of

from ray_app.errors import InputError
from ray_app.run import storage
from ray_app.run.folder import RunFolder, begin, commit, now, read_record, read_run, read_started


@pytest.mark.parametrize("base", ["runs/x", "s3://bucket/runs/x"])
def test_paths_are_those_of_the_design(base: str) -> None:
    folder = RunFolder(base + "/")
    assert folder.stage_dir("pairs") == f"{base}/pairs"
    assert folder.stage_dir("judgments", iteration=1) == f"{base}/iter_01/judgments"
    assert folder.stage_dir("evaluation", iteration=0) == f"{base}/iter_00/evaluation"
    assert folder.checkpoint(1) == f"{base}/iter_01/checkpoint"
    assert folder.train_state(12) == f"{base}/iter_12/train_state"


def test_a_commit_comes_back_equal(place: str) -> None:
    directory = RunFolder(place).stage_dir("judgments", 1)
    printed = print_of("judgments", {"judging": {"samples": 4, "letters": ("A", "B")}}, ("abc",))
    record = record_of(printed, 1, extra={"rate": None})
    assert read_record(directory) is None
    commit(directory, record)
    assert read_record(directory) == record
    assert read_record(directory).fingerprint.digest == printed.digest


def test_a_loss_that_diverged_is_committed_as_null(place: str) -> None:
    commit(place, record_of(print_of("training"), 1, extra={"loss": float("nan"), "curve": [1.0, float("inf")]}))
    assert read_record(place).extra == {"loss": None, "curve": [1.0, None]}


def test_death_in_the_commit_leaves_the_stage_uncommitted(tmp_path, killed_before_rename) -> None:
    with pytest.raises(killed_before_rename):
        commit(str(tmp_path), record_of(print_of("pairs")))
    assert read_record(str(tmp_path)) is None


def test_what_an_interrupted_stage_was_begun_with_is_kept_until_the_commit(place: str) -> None:
    printed = print_of("judgments", {"judging": {"samples": 4, "letters": ("A", "B")}}, ("abc",))
    assert read_started(place) is None
    begin(place, printed)
    assert read_started(place).digest == printed.digest
    assert read_record(place) is None
    commit(place, record_of(printed))
    assert read_started(place) is None
    storage.write_bytes_atomic(storage.join(place, "started.json"), b'{"stage": 1}')
    with pytest.raises(InputError, match=r"started\.json is damaged"):
        read_started(place)


@pytest.mark.parametrize("content", [b"{", b'{"stage": "pairs"}', b"[]", b"\xff"])
def test_a_damaged_record_is_named(place: str, content: bytes) -> None:
    storage.write_bytes_atomic(storage.join(place, "stage.json"), content)
    with pytest.raises(InputError, match=r"stage\.json is damaged") as caught:
        read_record(place)
    assert "\n" not in str(caught.value)


def test_clear_leaves_what_is_no_table(place: str) -> None:
    for name in ("shard-00000.parquet", "quarantine-00000.parquet", "numbers.json"):
        storage.write_bytes_atomic(storage.join(place, name), b"")
    RunFolder(place).clear(place)
    assert storage.list_files(place) == [storage.join(place, "numbers.json")]


def test_now_is_utc() -> None:
    assert datetime.fromisoformat(now()).utcoffset() == timedelta(0)


def test_a_run_of_a_newer_version_is_refused_by_name(tmp_path: Path) -> None:
    """One without a format is of before there was one: it goes on."""
    (tmp_path / "run.json").write_text("{}")
    assert read_run(str(tmp_path)) == {}
    (tmp_path / "run.json").write_text('{"format": 99}')
    with pytest.raises(InputError, match=r"run\.json has format 99; this version continues runs up to format 1"):
        read_run(str(tmp_path))
    (tmp_path / "run.json").write_text("[1")
    with pytest.raises(InputError, match=r"run\.json is damaged"):
        read_run(str(tmp_path))
