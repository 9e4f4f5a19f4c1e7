"""Where training workers wait, and which GPU each of them gets."""

from __future__ import annotations

import pytest

from ray_app.system.claims import Claim, Place
from ray_app.train.settings import TrainSettings
from ray_app.train.standby import device_index, gpus_by_node, own_device, seats


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
