"""A run folder on S3, where moto's server stands in for a store (`object_store`), with faults in front of it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from loop_runs import SMALL_TRAINING, Loop, scripted
from object_store import BUCKET, FaultyStore, object_store

from ray_app.base import local_copy
from ray_app.base.stores import filesystem
from ray_app.errors import InputError
from ray_app.run import storage
from ray_app.run.lease import Lease
from ray_app.run.location import resolved_runs

RUN = f"s3://{BUCKET}/runs/run"
UNSTEADY = {"refused": 23, "lost": 37, "slow": 41}


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyStore]:
    with object_store(monkeypatch) as made:
        yield made


def put_model(uri: str, weights: bytes = b"weights") -> None:
    for name, data in {"config.json": b"{}", "model.safetensors": weights, "judge.json": b"{}"}.items():
        storage.write_bytes_atomic(f"{uri}/{name}", data)


def gets(store: FaultyStore) -> int:
    return store.faults.met["GET"]


def test_a_file_is_created_once_also_where_the_answer_is_lost(store: FaultyStore) -> None:
    uri = f"{RUN}/shard-00000.parquet"
    storage.create_bytes(uri, b"first")
    with pytest.raises(FileExistsError):
        storage.create_bytes(uri, b"second")
    assert storage.read_bytes(uri) == b"first"
    store.faults.lost_puts = 1
    with Lease(RUN) as lease:  # its file is created in the same way, and must not be taken for another driver's
        lease.fence.check()
        assert storage.read_json(lease.uri)["owner"] == lease.fence.owner
    assert not storage.exists(lease.uri)
    assert store.faults.met["lost"] == 1


def test_what_another_process_writes_is_seen_at_once(store: FaultyStore) -> None:
    storage.write_bytes_atomic(f"{RUN}/a/one", b"1")
    assert storage.list_files(f"{RUN}/a") == [f"{RUN}/a/one"]
    fs, path = filesystem(f"{RUN}/a")
    assert len(fs.ls(path)) == 1
    type(fs)(skip_instance_cache=True).pipe_file(f"{path}/two", b"2")  # as a process of its own: another client
    assert len(fs.ls(path)) == 2
    assert storage.exists(f"{RUN}/a/two")


def test_a_model_comes_to_a_node_once(store: FaultyStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_copy.tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(local_copy, "_held", {})
    first = Path(local_copy.local_model(_model(f"{RUN}/step-1")))
    assert {file.name for file in first.iterdir()} == {"config.json", "model.safetensors"}
    storage.write_bytes_atomic(f"{RUN}/step-1/README.md", b"a card")  # what is beside a model makes no other of it
    before = gets(store)
    assert local_copy.local_model(f"{RUN}/step-1") == str(first)
    assert gets(store) == before + 1  # the listing
    second = Path(local_copy.local_model(_model(f"{RUN}/step-2", b"other weights")))
    assert (second / "model.safetensors").read_bytes() == b"other weights"
    assert not first.exists()  # nobody holds it any more
    assert local_copy.local_model("owner/name") == "owner/name"
    with pytest.raises(InputError, match=r"nothing holds no config\.json"):
        local_copy.local_model(f"{RUN}/nothing")


def _model(uri: str, weights: bytes = b"weights") -> str:
    put_model(uri, weights)
    return uri


def test_a_bucket_that_is_not_there_is_told_before_any_work(store: FaultyStore, tmp_path: Path) -> None:
    assert resolved_runs(f"s3://{BUCKET}/runs", tmp_path) == f"s3://{BUCKET}/runs"
    with pytest.raises(InputError, match="runs: s3://nowhere/runs cannot be used: there is no bucket nowhere"):
        resolved_runs("s3://nowhere/runs", tmp_path)


def rows(directory: str, prefix: str = "shard") -> list[dict]:
    found = []
    for file in storage.list_files(directory, f"{prefix}-*.parquet"):
        fs, path = filesystem(file)
        with fs.open(path, "rb") as opened:
            found += pq.read_table(opened).to_pylist()
    return found


@pytest.mark.matrix
@pytest.mark.timeout(1500)
def test_every_iteration_on_an_unsteady_store(store: FaultyStore, shallow: str, tmp_path: Path) -> None:
    """Two iterations with real training; the second begins with the checkpoint of the first. Every step is a candidate
    that is judged. The run is killed in the middle of judging, and continued.
    """
    for name, every in UNSTEADY.items():
        setattr(store.faults, name, every)
    loop = Loop(
        tmp_path,
        {
            "runs": RUN.rsplit("/", 1)[0],
            "iterations": 2,
            "limit": 16,
            "shards": {"max_rows": 8, "max_seconds": 2},
            "judge": scripted(shallow, p=[0.9, 0.5]),
            "judging": {"samples": 3},
            "train": {**SMALL_TRAINING, "checkpoint_every": 1, "max_steps": 2, "start": "previous"},
        },
    )
    try:
        first = f"{RUN}/iter_01/judgments"
        killed = loop.killed_when(lambda: len(storage.list_files(first, "shard-*.parquet")) > 0)
        assert killed.code != 0
        loop.succeeds(timeout=1200)
        for iteration in ("iter_01", "iter_02"):
            pairs, judged = rows(f"{RUN}/pairs"), rows(f"{RUN}/{iteration}/judgments")
            assert {row["pair_id"] for row in judged} == {row["pair_id"] for row in pairs}
            assert max(Counter((r["pair_id"], r["order"], r["sample"]) for r in judged).values()) == 1
            checkpoint = f"{RUN}/{iteration}/checkpoint"
            for name in ("model.safetensors", "config.json", "judge.json", "candidate.json", "README.md"):
                assert storage.exists(f"{checkpoint}/{name}"), name
            assert json.loads(storage.read_bytes(f"{checkpoint}/training.json"))["steps"] == 2
        assert storage.exists(f"{RUN}/report.html")
        assert not storage.exists(f"{RUN}/lease.json")
        met = dict(store.faults.met)
        assert min(met[kind] for kind in UNSTEADY) > 0, met
        again = loop.succeeds(timeout=600)  # nothing is left to do
        assert "run folder: s3://" in again.output
    finally:
        loop.stop()
