"""Where training workers wait, and which GPU each of them gets."""

from __future__ import annotations

import logging
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ray_app.system.claims import Claim, Place
from ray_app.train import standby
from ray_app.train.job import Job
from ray_app.train.settings import TrainSettings
from ray_app.train.standby import Standby, any_gone, device_index, gpus_by_node, own_device, seats


def node(name: str, alive: bool = True, **resources: float) -> dict:
    return {"NodeID": name, "Alive": alive, "Resources": resources}


NODES = [node("head", CPU=8), node("small", CPU=32, GPU=2), node("large", CPU=64, GPU=4), node("dead", False, GPU=8)]


@pytest.mark.parametrize(
    ("workers", "expected"),
    [
        (1, ["large"]),
        (4, ["large"] * 4),
        (6, ["large"] * 4 + ["small"] * 2),
        (7, None),  # a node that is to come has no name yet
    ],
)
def test_one_worker_a_gpu_on_the_nodes_with_most_of_them(workers: int, expected: list[str] | None):
    assert seats(NODES, TrainSettings(workers=workers)) == expected


def test_without_gpus_processors_are_counted():
    settings = TrainSettings(workers=3, use_gpu=False, cpus_per_worker=24)
    assert seats(NODES, settings) == ["large", "large", "small"]


def test_each_worker_computes_on_a_gpu_of_its_node(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    claims = [Claim(None, Place(name, (gpu,))) for name, gpu in [("a", "3"), ("b", "0"), ("a", "1")]]
    gpus = gpus_by_node(claims)
    assert gpus == {"a": ("3", "1"), "b": ("0",)}
    assert [own_device(gpus, "a", rank) for rank in (0, 1, 2)] == [3, 1, None]
    assert own_device(gpus, "c", 0) is None


def test_a_process_counts_the_gpus_that_it_sees():
    assert device_index("5", None) == 5
    assert device_index("5", "4,5") == 1


def test_a_node_is_gone_when_no_living_one_has_its_name():
    assert not any_gone(["large", "small", "large"], NODES)
    assert any_gone(["large", "dead"], NODES)
    assert any_gone(["large", "never seen"], NODES)


class Waiting:
    """Workers that wait on two nodes, on a cluster of which a test says what there is."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.nodes = [node("a", CPU=4), node("b", CPU=4)]
        self.ended: Future[Any] = Future()
        self.killed: list[str] = []
        monkeypatch.setattr(standby, "LOOK_S", 0.01)
        monkeypatch.setattr(standby, "END_S", 0.01)
        monkeypatch.setattr(standby.ray, "nodes", lambda: self.nodes)
        monkeypatch.setattr(standby.ray, "get", lambda answer, timeout=None: answer)
        monkeypatch.setattr(standby.ray, "kill", self.killed.append)
        orders: Any = SimpleNamespace(
            give=SimpleNamespace(remote=self.given), who_waits=SimpleNamespace(remote=lambda: "controller")
        )
        settings = TrainSettings(workers=2, use_gpu=False)
        self.standby = Standby(settings, ["a", "b"], str(folder / "standby-1"), orders, self.ended)
        self.job = Job(settings, "m", "n", 0, [], str(folder / "fit"), 4, 4)
        self.when_given = lambda: None

    def given(self, _: object) -> None:
        self.when_given()


@pytest.fixture
def waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Waiting:
    return Waiting(tmp_path, monkeypatch)


def test_who_waited_does_the_job(waiting: Waiting):
    waiting.when_given = lambda: waiting.ended.set_result(None)
    assert waiting.standby.did(waiting.job)
    assert waiting.killed == []


@pytest.mark.timeout(60)
def test_once_a_node_of_theirs_is_gone_others_are_to_start(waiting: Waiting, caplog: pytest.LogCaptureFixture):
    """Ray Train would wait for that node for an hour, by its name, wherever else there is room."""
    waiting.when_given = lambda: waiting.nodes.__setitem__(1, node("b", False, CPU=4))
    with caplog.at_level(logging.WARNING):
        assert not waiting.standby.did(waiting.job)
    assert waiting.killed == ["controller"]
    assert "a node of the training workers that waited is gone: others start, from the last saved state" in caplog.text
    # What they have saved is where the others look for it.
    assert (Path(waiting.job.work_dir) / "ray").is_symlink()


def test_another_node_may_go(waiting: Waiting):
    waiting.nodes += [node("c", False, CPU=4)]
    waiting.when_given = lambda: waiting.ended.set_result(None)
    assert waiting.standby.did(waiting.job)
