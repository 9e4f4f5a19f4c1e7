"""What is told while a training waits for a node."""

from __future__ import annotations

import logging
import time
from typing import Any

import pytest

from ray_app.train import room
from ray_app.train.launch import START_TIMEOUT_S, starts
from ray_app.train.room import held_room, missing_room, room_for, telling_of_room, waits
from ray_app.train.settings import TrainSettings


def node(cpus: float, gpus: float = 0.0, alive: bool = True) -> dict[str, Any]:
    return {"Alive": alive, "Resources": {"CPU": cpus} | ({"GPU": gpus} if gpus else {})}


ON_GPUS = TrainSettings(workers=8, use_gpu=True, cpus_per_worker=4)
ON_CPUS = TrainSettings(workers=2, use_gpu=False, cpus_per_worker=2)


@pytest.mark.parametrize(
    ("settings", "nodes", "room"),
    [
        (ON_GPUS, [node(64, 8)], 8),
        (ON_GPUS, [node(16, 8)], 4),  # too few processors for its GPUs
        (ON_GPUS, [node(64, 4), node(64, 4, alive=False)], 4),
        (ON_GPUS, [node(64)], 0),
        (ON_CPUS, [node(3), node(3)], 2),  # three and three are no four
        (ON_CPUS, [node(3)], 1),
        (ON_CPUS, [], 0),
    ],
)
def test_room_is_of_living_nodes_one_by_one(settings: TrainSettings, nodes: list[Any], room: int) -> None:
    assert room_for(nodes, settings) == room
    assert (missing_room(nodes, settings, 600) is None) == (room >= settings.workers)


def test_the_line_names_what_is_wanted_and_what_is_there() -> None:
    line = missing_room([node(64, 4), node(64, 4, alive=False)], ON_GPUS, 3000)
    assert line is not None
    assert "8 workers with 4 CPUs and a GPU each" in line
    assert "1 node(s) with 4 GPUs and 64 CPUs are there, room for 4" in line
    assert "fails after 50 min" in line


def test_it_is_told_once_and_that_it_is_over(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Of looks that come one after the other: nothing, too little twice, enough twice."""
    looks = [[node(4)], [node(3)], [node(3)], [node(4)], [node(4)]]
    monkeypatch.setattr(room, "LOOK_S", 0.001)
    monkeypatch.setattr(room.ray, "nodes", lambda: looks.pop(0) if len(looks) > 1 else looks[0])
    monkeypatch.setattr(room.ray.util, "placement_group_table", dict)
    with caplog.at_level(logging.WARNING, logger=room.__name__), telling_of_room(ON_CPUS, 600):
        while len(looks) > 1 or len(caplog.records) < 2:
            time.sleep(0.01)
    assert [record.getMessage().partition(":")[0] for record in caplog.records] == [
        "training waits for room",
        "training",
    ]


def group(state: str, *bundles: dict[str, float]) -> dict[str, Any]:
    return {"state": state, "bundles": dict(enumerate(bundles))}


@pytest.mark.parametrize(
    ("groups", "waiting"),
    [
        ([], False),
        ([group("PENDING", {"CPU": 2.0}, {"CPU": 2.0})], True),
        ([group("CREATED", {"CPU": 2.0}, {"CPU": 2.0})], False),
        ([group("RESCHEDULING", {"CPU": 2.0}, {"CPU": 2.0})], True),
        ([group("PENDING", {"CPU": 2.0})], False),  # an engine's
        ([group("PENDING", {"CPU": 2.0, "GPU": 1.0}, {"CPU": 2.0, "GPU": 1.0})], False),  # another training's
        ([group("CREATED", {"CPU": 1.0}), group("PENDING", {"CPU": 2.0}, {"CPU": 2.0})], True),
    ],
)
def test_workers_wait_where_ray_has_not_placed_them(groups: list[Any], waiting: bool) -> None:
    assert waits(dict(zip("abc", groups, strict=False)), ON_CPUS) == waiting


def test_room_that_others_hold_is_told_as_that() -> None:
    """Engines, or another job: the nodes would have room."""
    nodes = [node(4), node(4)]
    assert missing_room(nodes, ON_CPUS, 600) is None
    line = held_room(nodes, {"CPU": 2.0}, ON_CPUS, 600)
    assert "2 workers with 2 CPUs each, and 2 node(s) with 0 GPUs and 8 CPUs are there, of which 0 GPUs and 2" in line
    assert "when engines or other jobs give back what they hold, or fails after 10 min" in line


@pytest.mark.timeout(60)
def test_workers_that_wait_at_two_looks_are_told_of(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """At one look they may be about to start."""
    asked, placed = (group(state, {"CPU": 2.0}, {"CPU": 2.0}) for state in ("PENDING", "CREATED"))
    looks = [{"a": one} for one in (asked, placed, asked, asked, placed)]
    left = list(looks)
    told_at: list[int] = []

    def free() -> dict[str, float]:
        told_at.append(len(left))
        return {"CPU": 2.0}

    monkeypatch.setattr(room, "LOOK_S", 0.001)
    monkeypatch.setattr(room.ray, "nodes", lambda: [node(4), node(4)])
    monkeypatch.setattr(room.ray, "available_resources", free)
    monkeypatch.setattr(room.ray.util, "placement_group_table", lambda: left.pop(0) if len(left) > 1 else left[0])
    with caplog.at_level(logging.WARNING, logger=room.__name__), telling_of_room(ON_CPUS, 600):
        while len(caplog.records) < 2:
            time.sleep(0.01)
    assert told_at == [1], "at the fourth look"
    assert [record.getMessage().partition(",")[0] for record in caplog.records] == [
        "training waits for room: 2 workers with 2 CPUs each",
        "training: there is room again",
    ]


def test_the_limit_is_that_of_ray_train() -> None:
    assert starts(TrainSettings(max_failures=3)) * START_TIMEOUT_S == 3600
