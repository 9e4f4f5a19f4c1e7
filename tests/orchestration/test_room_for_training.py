"""A training whose room engines hold, as Ray tells of it. On a local Ray."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator

import pytest
import ray
from local_ray import start_ray
from ray.util.placement_group import placement_group, remove_placement_group

from ray_app.train import room
from ray_app.train.room import telling_of_room
from ray_app.train.settings import TrainSettings


@pytest.fixture
def four_cpus() -> Iterator[None]:
    start_ray(num_cpus=4, object_store_memory=100 * 2**20, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


def said(caplog: pytest.LogCaptureFixture, words: str) -> bool:
    """As soon as it is; a minute is a failure."""
    for _ in range(600):
        if words in caplog.text:
            return True
        time.sleep(0.1)
    return False


@pytest.mark.usefixtures("four_cpus")
def test_workers_that_wait_for_what_engines_hold_are_told_of(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(room, "LOOK_S", 0.5)
    engines = placement_group([{"CPU": 3.0}])
    ray.get(engines.ready(), timeout=60)
    workers = placement_group([{"CPU": 1.0}] * 2)  # as Ray Train asks for them
    settings = TrainSettings(workers=2, use_gpu=False, cpus_per_worker=1)
    with caplog.at_level(logging.WARNING, logger=room.__name__), telling_of_room(settings, 600):
        assert said(caplog, "training waits for room: 2 workers with 1 CPUs each, and 1 node(s) with 0 GPUs and 4 CPUs")
        assert "of which 0 GPUs and" in caplog.text
        remove_placement_group(engines)
        ray.get(workers.ready(), timeout=60)
        assert said(caplog, "training: there is room again")
    remove_placement_group(workers)
