"""kill -9 of the driver in each stage, Ctrl-C in one: the same command goes on, and redoes nothing that is closed. The
short form, which `make test` has, is in test_stop.py.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from killing import (
    CLASSIFY,
    EVALUATION_ROW,
    JUDGE,
    MODIFY,
    OTHER_ROW,
    ROW,
    Killing,
    judged_whole_and_once,
    killable_settings,
    trained_until,
    whole_and_once,
)
from loop_runs import ROOT, Loop, held, scripted

Make = Callable[..., Loop]


@pytest.fixture
def killable(loop: Make, shallow: str) -> Loop:
    return loop(**killable_settings(shallow))


@pytest.mark.matrix
@pytest.mark.timeout(2400)
def test_kill_9_in_every_stage(killable: Loop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    killing = Killing(killable)
    killing.at(killing.inside("instructions"), *held("generator", f"{CLASSIFY}.*{ROW}"))
    assert 0 < len(killable.rows("instructions")) < 24
    killing.at(killing.inside("pairs"), *held("generator", f"{MODIFY}.*{ROW}"))
    assert 0 < len(killable.rows("pairs")) < 24
    killing.interrupted(killing.inside("iter_00/evaluation/validation"), *held("judge", EVALUATION_ROW))
    killing.at(killing.inside("iter_01/judgments"), *held("judge", ROW))
    assert not killing.committed("iter_01/judgments")
    killing.at(lambda: killing.committed("iter_01/judgments"))
    with monkeypatch.context() as stand_in:
        stand_in.setenv("PYTHONPATH", str(ROOT / "tests" / "stand_ins"))
        killing.at(killing.inside("iter_01/train_state", "**/progress-000002.json"), *trained_until(3, tmp_path))
    assert not killing.committed("iter_01/training")
    first_step = killable.files("iter_01/train_state/**/progress-000001.json")
    killing.at(killing.inside("iter_01/evaluation/validation"), *held("judge", EVALUATION_ROW))
    killable.succeeds()
    killing.compare()
    assert len(first_step) == 1  # training went on behind it
    assert killable.files("iter_01/train_state/**/progress-000001.json") == first_step
    whole_and_once(killable)


@pytest.mark.matrix
@pytest.mark.timeout(2400)
def test_kill_9_while_pairs_stream_into_judging(tmp_path: Path, shallow: str) -> None:
    """Killed with pairs alone in closed shards, and twice with judgments too: the tables of an undisturbed run."""
    loops = []
    for name in ("undisturbed", "killed"):
        (tmp_path / name).mkdir()
        loops.append(Loop(tmp_path / name, streamed_settings(shallow)))
    undisturbed, killed = loops
    try:
        undisturbed.killed_when(lambda: Killing(undisturbed).committed("iter_01/judgments"))
        killing = Killing(killed)
        killing.at(killing.inside("pairs"), *held("generator", ROW), *held("judge", ""))
        assert "pairs and iteration 1: judgments run side by side" in (killed.folder / "err-0").read_text()
        judged = killing.inside("iter_01/judgments")
        assert not judged()
        killing.at(judged, *held("generator", ROW), *held("judge", OTHER_ROW))
        assert not killing.committed("pairs")
        shards = judgment_shards(killed)
        killing.at(lambda: judgment_shards(killed) > shards, *held("judge", ROW))
        assert not killing.committed("iter_01/judgments")
        killing.at(lambda: killing.committed("iter_01/judgments"))
        assert killing.committed("pairs")
        judged_whole_and_once(killed)
        for directory in ("pairs", "iter_01/judgments"):
            assert sorted(map(str, killed.rows(directory))) == sorted(map(str, undisturbed.rows(directory)))
    finally:
        for loop in loops:
            loop.stop()


def judgment_shards(loop: Loop) -> int:
    return len(list((loop.run / "iter_01/judgments").glob("shard-*.parquet")))


def streamed_settings(model: str) -> dict[str, Any]:
    """Pools of two models side by side; shards close early, so that there is something to be killed between."""
    return {
        "iterations": 1,
        "limit": 40,
        "shards": {"max_rows": 8, "max_seconds": 2},
        "generator": scripted(),
        "judge": scripted(model, **JUDGE),
        "judging": {"samples": 4},
    }


def test_a_killed_stage_never_goes_on_with_another_setting(loop: Make) -> None:
    run = loop(limit=16, shards={"max_rows": 4, "max_seconds": 2})
    run.killed_when(lambda: any((run.run / "pairs").glob("shard-*.parquet")), options=held("generator", ROW))
    closed = run.files("pairs/shard-*.parquet")
    refused = run("--pairs.max_similarity", "0.8")
    assert refused.code == 2
    assert "setting pairs.max_similarity was 0.9, is now 0.8" in refused.one_line
    assert f"the interrupted stage 'pairs' was begun before that; set it back, or remove {run.run}/pairs" in (
        refused.one_line
    )
    assert "Ray" not in refused.errors
    run.succeeds("--generator.max_num_seqs", "16")
    assert closed.items() <= run.files("pairs/shard-*.parquet").items()
    assert len(run.rows("pairs")) == 16
    assert not list(run.run.rglob("started.json"))


@pytest.mark.matrix
def test_a_second_driver_is_refused(loop: Make) -> None:
    run = loop(limit=16, shards={"max_rows": 4, "max_seconds": 2})
    go = run.folder / "go"
    first = run.start(*held("generator", ROW, go))
    run.wait_for(first, lambda: any((run.run / "pairs").glob("shard-*.parquet")))
    second = run()
    assert second.code == 1
    assert f"process {first.pid} " in second.one_line
    assert "another driver" in second.one_line
    go.touch()
    assert run.ended(first).code == 0
    assert len(run.rows("pairs")) == 16
