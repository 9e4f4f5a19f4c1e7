"""Files appear whole or not at all, on local paths and on an object store."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from ray_app.errors import InputError
from ray_app.run import storage
from ray_app.run.storage import join

TABLE = pa.table({"id": ["a", "b", "c"], "text": ["x" * 100, "ü\n", None]})


def test_json_comes_back_and_is_replaced(place: str) -> None:
    uri = join(place, "deep", "value.json")
    for value in ({"a": [1, None, "ü"]}, {"a": 2}):
        storage.write_json_atomic(uri, value)
        assert storage.read_json(uri) == value
    assert [f.rsplit("/", 1)[-1] for f in storage.list_files(join(place, "deep"))] == ["value.json"]


def test_nan_is_refused_before_anything_is_written(place: str) -> None:
    uri = join(place, "value.json")
    with pytest.raises(ValueError, match="not JSON compliant"):
        storage.write_json_atomic(uri, {"loss": float("nan")})
    assert not storage.exists(uri)


def test_parquet_comes_back_whole_or_by_column(place: str) -> None:
    uri = join(place, "t.parquet")
    storage.write_parquet_atomic(TABLE, uri)
    assert storage.read_parquet(uri).equals(TABLE)
    assert storage.read_parquet(uri, columns=["id"]).column_names == ["id"]
    assert storage.read_parquet(uri, columns=[]).column_names == []
    assert storage.count_rows(uri) == 3


@pytest.mark.parametrize("read", [storage.read_parquet, storage.count_rows])
@pytest.mark.parametrize("damage", [lambda b: b[:-20], lambda b: b"", lambda b: b"PAR1" + b"\0" * 50 + b"PAR1"])
def test_a_damaged_parquet_file_is_named(place: str, read, damage) -> None:
    uri = join(place, "t.parquet")
    storage.write_bytes_atomic(uri, damage(storage.parquet_bytes(TABLE)))
    with pytest.raises(InputError, match=r"t\.parquet is not a whole Parquet file") as caught:
        read(uri)
    assert "\n" not in str(caught.value)


def test_a_missing_file_or_column_is_named(place: str) -> None:
    uri = join(place, "t.parquet")
    with pytest.raises(InputError, match=r"t\.parquet does not exist"):
        storage.read_parquet(uri)
    storage.write_parquet_atomic(TABLE, uri)
    with pytest.raises(InputError, match=r"t\.parquet.*score"):
        storage.read_parquet(uri, columns=["score"])


def test_death_before_the_rename_leaves_the_old_file_and_nothing_listed(tmp_path: Path, killed_before_rename) -> None:
    (tmp_path / "value.json").write_text('{"old": 1}')
    with pytest.raises(killed_before_rename):
        storage.write_json_atomic(str(tmp_path / "value.json"), {"new": 2})
    assert storage.read_json(str(tmp_path / "value.json")) == {"old": 1}
    assert storage.list_files(str(tmp_path)) == [str(tmp_path / "value.json")]
    assert len(os.listdir(tmp_path)) == 2  # the temporary file is there: the test did what it says


def test_a_failed_write_leaves_no_temporary_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("ray_app.run.storage.os.fsync", full)
    monkeypatch.setattr("ray_app.run.storage.PAUSES_S", (0.0, 0.0))
    with pytest.raises(OSError, match="No space left"):
        storage.write_bytes_atomic(str(tmp_path / "x"), b"1")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("write", [storage.write_bytes_atomic, storage.create_bytes])
def test_a_write_that_fails_for_a_while_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, write: Callable[..., None]
) -> None:
    faults = [OSError(5, "Input/output error"), OSError(5, "Input/output error")]
    sync = os.fsync

    def flaky(number: int) -> None:
        if faults:
            raise faults.pop()
        sync(number)

    monkeypatch.setattr("ray_app.run.storage.os.fsync", flaky)
    monkeypatch.setattr("ray_app.run.storage.PAUSES_S", (0.0, 0.0))
    write(str(tmp_path / "x"), b"1")
    assert (tmp_path / "x").read_bytes() == b"1"
    assert os.listdir(tmp_path) == ["x"]
    assert len([message for message in caplog.messages if "could not be written" in message]) == 2


def test_what_another_try_would_find_again_is_raised_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray_app.run.storage.time.sleep", lambda _: pytest.fail("it waits"))
    (tmp_path / "x").write_bytes(b"1")
    with pytest.raises(FileExistsError):
        storage.create_bytes(str(tmp_path / "x"), b"2")


def test_create_is_exclusive(place: str) -> None:
    uri = join(place, "lease.json")
    storage.create_bytes(uri, b"1")
    with pytest.raises(FileExistsError):
        storage.create_bytes(uri, b"2")
    assert storage.read_json(uri) == 1
    assert len(storage.list_files(place)) == 1


def test_list_files_is_sorted_and_leaves_out_folders_and_others(place: str) -> None:
    for name in ("b.parquet", "a.parquet", "c.json", "folder.parquet/inner.parquet"):
        storage.write_bytes_atomic(join(place, name), b"")
    assert storage.list_files(place, "*.parquet") == [join(place, "a.parquet"), join(place, "b.parquet")]
    assert storage.list_files(join(place, "nowhere")) == []


def test_list_folders_with_finds_the_depth_asked_for(place: str) -> None:
    for name in ("pairs/stage.json", "iter_01/judgments/stage.json", "iter_01/evaluation/test/stage.json", "x.json"):
        storage.write_bytes_atomic(join(place, name), b"")
    assert storage.list_folders_with(place, "*", "stage.json") == [join(place, "pairs")]
    assert storage.list_folders_with(place, "iter_*/*", "stage.json") == [join(place, "iter_01/judgments")]
    assert storage.list_folders_with(join(place, "nowhere"), "*", "stage.json") == []


def test_remove_takes_files_folders_and_nothing(place: str) -> None:
    storage.write_bytes_atomic(join(place, "folder", "x"), b"1")
    storage.remove(join(place, "folder"))
    storage.remove(join(place, "folder"))
    assert not storage.exists(join(place, "folder", "x"))


def test_content_hash_follows_content_and_names_only(place: str) -> None:
    hashes = set()
    for folder, files in {
        "one": {"a": b"1", "b": b"2"},
        "same": {"b": b"2", "a": b"1"},
        "moved": {"a": b"2", "b": b"1"},
        "joined": {"a": b"12", "b": b""},
        "renamed": {"a": b"1", "c": b"2"},
    }.items():
        for name, data in files.items():
            storage.write_bytes_atomic(join(place, folder, name), data)
        hashes.add(storage.content_hash(join(place, folder)))
    assert len(hashes) == 4
    assert storage.content_hash(join(place, "one")) == storage.content_hash(join(place, "same"))
    assert storage.content_hash(join(place, "one", "a")) == storage.content_hash(join(place, "renamed", "a"))
    with pytest.raises(InputError, match="nowhere does not exist"):
        storage.content_hash(join(place, "nowhere"))


def test_remove_temporaries_leaves_everything_else(tmp_path: Path) -> None:
    (tmp_path / f"{storage.TEMPORARY}x").write_text("")
    (tmp_path / "shard-00000.parquet").write_text("")
    storage.remove_temporaries(str(tmp_path))
    assert os.listdir(tmp_path) == ["shard-00000.parquet"]
    storage.remove_temporaries(str(tmp_path / "nowhere"))
