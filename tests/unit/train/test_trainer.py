"""What a fit leaves behind, and what it leaves alone once the run is another driver's. No Ray."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ray_app.errors import RunError
from ray_app.train.candidates import RECORD, Candidate
from ray_app.train.state import Progress
from ray_app.train.trainer import TrainResult, commit
from ray_app.train.worker import Worker


def lost() -> None:
    raise RunError("another driver took over this run")


def lost_after(looks: int) -> Callable[[], None]:
    """A fence that lets so many acts through."""
    left = [None] * looks

    def fence() -> None:
        if not left:
            lost()
        left.pop()

    return fence


def trained(folder: Path) -> tuple[TrainResult, Path, Path]:
    """A fit that has ended, with the state and the checkpoint that another driver has written meanwhile."""
    work, checkpoint = folder / "state", folder / "checkpoint"
    found = []
    for step in (2, 4):
        candidate = work / "candidates" / f"step-{step:06d}"
        candidate.mkdir(parents=True)
        (candidate / "model.safetensors").write_text(f"step {step}")
        found.append(Candidate(step, 1.0, 1, 0.5, str(candidate)))
    (work / "ray").mkdir()
    (work / "ray" / "state").write_text("of the driver that goes on")
    checkpoint.mkdir()
    (checkpoint / "model.safetensors").write_text("of the driver that goes on")
    fields: dict[str, Any] = {"losses": [], "metrics": []}
    return TrainResult(1, 4, 1.0, 1, 1.0, **fields, candidates=found, selected=4), work, checkpoint


def contents(folder: Path) -> dict[str, str]:
    return {str(file.relative_to(folder)): file.read_text() for file in sorted(folder.rglob("*")) if file.is_file()}


def test_the_selected_candidate_becomes_the_checkpoint(tmp_path: Path) -> None:
    result, work, checkpoint = trained(tmp_path)
    commit(result, str(checkpoint), "fit", str(work), fence=lost_after(3))
    assert (checkpoint / "model.safetensors").read_text() == "step 4"
    assert json.loads((checkpoint / RECORD).read_text())["fit"] == "fit"
    assert not (work / "ray").exists()
    assert not list((work / "candidates").iterdir())


def test_who_has_lost_the_run_replaces_and_removes_nothing(tmp_path: Path) -> None:
    result, work, checkpoint = trained(tmp_path)
    before = contents(tmp_path)
    with pytest.raises(RunError, match="another driver"):
        commit(result, str(checkpoint), "fit", str(work), fence=lost)
    assert contents(tmp_path) == before


def test_who_loses_it_while_the_record_is_written_places_nothing(tmp_path: Path) -> None:
    result, work, checkpoint = trained(tmp_path)
    with pytest.raises(RunError, match="another driver"):
        commit(result, str(checkpoint), "fit", str(work), fence=lost_after(1))
    assert contents(checkpoint) == {"model.safetensors": "of the driver that goes on"}


def test_who_loses_it_while_the_checkpoint_is_copied_drops_no_state(tmp_path: Path) -> None:
    result, work, checkpoint = trained(tmp_path)
    with pytest.raises(RunError, match="another driver"):
        commit(result, str(checkpoint), "fit", str(work), fence=lost_after(2))
    assert (work / "ray" / "state").read_text() == "of the driver that goes on"
    assert (work / "candidates" / "step-000002").exists()


def test_a_worker_of_a_driver_that_has_lost_the_run_saves_nothing(tmp_path: Path) -> None:
    """Its state would take the place of the other driver's: Ray Train keeps the newest two in one folder."""
    job = SimpleNamespace(fence=lost, work_dir=str(tmp_path))
    worker: Any = SimpleNamespace(job=job, rank=0, progress=Progress(step=2))
    with pytest.raises(RunError, match="another driver"):
        Worker._checkpoint(worker, 2)
    assert list(tmp_path.iterdir()) == []
