"""What the time of a fit went into: told by the workers, read by the driver, put on the run's account."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from ray_app.loop.stages.training import count_time
from ray_app.system.device_time import DeviceClock
from ray_app.train import trainer
from ray_app.train.job import Job
from ray_app.train.settings import TrainSettings
from ray_app.train.state import STEPS, read_spent, write_spent
from ray_app.train.trainer import TrainResult, run_segment


def job(folder: Path, started: float = 0.0) -> Job:
    return Job(TrainSettings(), "m", "n", 0, [], str(folder), 4, 4, started=started)


def test_only_what_the_workers_of_this_start_have_left_is_read(tmp_path: Path) -> None:
    assert read_spent(job(tmp_path, 1.0)) == {}
    write_spent(job(tmp_path, 1.0), {STEPS: 3.0})
    assert read_spent(job(tmp_path, 1.0)) == {STEPS: 3.0}
    assert read_spent(job(tmp_path, 2.0)) == {}


def test_what_the_workers_do_not_tell_of_is_their_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def workers(asked: Job) -> None:
        assert asked.started == pytest.approx(time.time(), abs=60)
        write_spent(asked, {"workers start": 0.01, STEPS: 0.02})
        time.sleep(0.05)

    monkeypatch.setattr(trainer, "run_workers", workers)
    spent = {STEPS: 1.0}
    run_segment(job(tmp_path), spent)
    assert spent[STEPS] == 1.02
    assert spent["workers start"] == 0.01
    assert spent["workers end"] >= 0.02


def test_steps_are_work_and_the_rest_is_waiting() -> None:
    hand = iter([0.0, 100.0, 100.0])
    clock = DeviceClock(4, lambda: next(hand))
    fields: dict[str, Any] = {name: [] for name in ("losses", "metrics", "candidates")}
    result = TrainResult(1, 1, 1.0, 1, 1.0, **fields, selected=1, spent={STEPS: 60.0, "workers start": 20.0})
    count_time(clock, result, 2)  # two of the four devices train
    assert clock.take() == {
        "devices": 4,
        "seconds": 100.0,
        "busy": 120.0,
        "idle": {"workers start": 80.0, "other": 200.0},
    }
