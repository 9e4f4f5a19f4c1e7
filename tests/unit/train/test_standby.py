"""Where training workers wait, and which GPU each of them gets."""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ray_app.errors import RunError
from ray_app.system.claims import Claim, Place
from ray_app.train import standby
from ray_app.train.job import Job
from ray_app.train.settings import TrainSettings
from ray_app.train.standby import Standby, any_gone, device_index, gpus_by_node, own_device, seats
from ray_app.train.standby_backend import Order, Orders
from ray_app.train.worker import waited_for


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
        self.orders: list[Order | None] = []

    def given(self, order: Order | None) -> None:
        self.orders.append(order)
        if order is None or not order.early:
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


def test_the_model_is_built_before_the_rows_are_there(waiting: Waiting):
    draft = replace(waiting.job, rows=(), work_dir="", total_steps=0, stop_at=0)
    waiting.standby.build(draft)
    waiting.standby.build(draft)  # asked again, it goes on
    waiting.when_given = lambda: waiting.ended.set_result(None)
    assert waiting.standby.did(waiting.job)
    early, whole = waiting.orders
    assert early
    assert early.early
    assert early.job == draft
    assert whole
    assert not whole.early
    assert whole.job.work_dir == waiting.job.work_dir


def test_a_model_that_was_built_for_another_training_is_given_up(waiting: Waiting):
    waiting.standby.build(replace(waiting.job, seed_model="another", rows=(), work_dir=""))
    assert not waiting.standby.did(waiting.job)
    assert waiting.orders[-1] is None
    assert waiting.killed == ["controller"]


def test_gpus_that_were_claimed_early_are_given_back_where_nothing_is_trained(
    waiting: Waiting, monkeypatch: pytest.MonkeyPatch
):
    claims = [Claim(None, Place("a", ("0",))), Claim(None, Place("b", ("0",)))]
    released: list[Claim] = []

    def claim(gpus: float, count: int, patience_s: float, nodes: Any, cpus: float = 0.0) -> list[Claim]:
        assert (gpus, cpus) == (1, 0.0), "choosing rows may need every CPU"
        return list(claims)

    monkeypatch.setattr(standby, "claim", claim)
    monkeypatch.setattr(standby, "release", released.extend)
    settings = TrainSettings(workers=2)
    waiting.standby.settings = settings
    waiting.standby.build(replace(waiting.job, settings=settings))
    assert waiting.orders[0]
    assert waiting.orders[0].gpus == {"a": ("0",), "b": ("0",)}
    waiting.standby.close()
    waiting.standby.close()
    assert released == claims


def test_where_gpus_are_not_free_early_the_training_claims_them(waiting: Waiting, monkeypatch: pytest.MonkeyPatch):
    def busy(*_: object) -> list[Claim]:
        raise RunError("2 times 1 GPU(s) were not free after 120 s")

    settings = TrainSettings(workers=2)
    waiting.standby.settings, job = settings, replace(waiting.job, settings=settings)
    monkeypatch.setattr(standby, "claim", busy)
    waiting.standby.build(job)
    assert waiting.orders == []
    asked: list[tuple[float, float]] = []
    monkeypatch.setattr(standby, "claim", lambda gpus, count, s, nodes, cpus=0.0: asked.append((gpus, cpus)) or [])
    waiting.when_given = lambda: waiting.ended.set_result(None)
    assert waiting.standby.did(job)
    assert asked == [(1, 0.0), (0, settings.cpus_per_worker)]


def test_training_goes_on_where_its_cpus_cannot_be_set_aside(waiting: Waiting, monkeypatch: pytest.MonkeyPatch):
    """Workers that take all CPUs of a node leave none for the thousandth by which they wait."""
    gpu = Claim(None, Place("a", ("0",)))

    def claim(gpus: float, count: int, patience_s: float, nodes: Any, cpus: float = 0.0) -> list[Claim]:
        if cpus:
            raise RunError("2 times 4 CPU(s) were not free after 10 s")
        return [gpu]

    released: list[Claim] = []
    monkeypatch.setattr(standby, "claim", claim)
    monkeypatch.setattr(standby, "release", released.extend)
    settings = TrainSettings(workers=2)
    waiting.standby.settings, job = settings, replace(waiting.job, settings=settings)
    waiting.standby.build(job)
    waiting.when_given = lambda: waiting.ended.set_result(None)
    assert waiting.standby.did(job)
    assert released == [gpu]


def test_workers_take_an_early_order_then_the_whole_one(waiting: Waiting):
    async def orders() -> None:
        held, job = Orders(), waiting.job
        await held.give(Order(job, {}, early=True))
        taken = await held.taken()
        assert taken
        assert taken.early
        asked = asyncio.ensure_future(held.whole())
        await asyncio.sleep(0)
        assert not asked.done()
        await held.give(Order(job, {}))
        assert (await asked) == Order(job, {})
        assert (await held.taken()) == Order(job, {})  # who starts again builds with its rows

    asyncio.run(orders())


def test_a_model_that_cannot_be_built_early_is_not_built_early_again(waiting: Waiting):
    """Workers that fail start again; the whole job then tells what is wrong, in the folder of the training."""

    async def orders() -> None:
        held, job = Orders(), waiting.job
        await held.give(Order(job, {}, early=True))
        assert await held.spoil() is None
        again = asyncio.ensure_future(held.taken())
        await asyncio.sleep(0)
        assert not again.done()
        await held.give(Order(job, {}))
        assert (await again) == Order(job, {})
        assert await held.spoil() == Order(job, {})  # another rank's word, which comes late: it tells its fault itself
        assert (await held.taken()) == Order(job, {})

    asyncio.run(orders())


@pytest.mark.parametrize(
    ("asked", "now", "built", "expected"),
    [
        (100.0, 103.0, 0.0, {"workers start": 3.0}),  # none was begun early
        (100.0, 100.5, 98.0, {"workers start": 0.5, "model is built": 0.0}),
        (100.0, 102.5, 102.0, {"workers start": 0.5, "model is built": 2.0}),
    ],
)
def test_what_workers_were_waited_for(asked: float, now: float, built: float, expected: dict[str, float]):
    assert waited_for(asked, now, built) == expected
