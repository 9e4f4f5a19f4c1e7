"""Pools that sleep while a trainer has their GPUs: what Ray counts at each moment, and what a failed waking does."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import ray

from ray_app.engine.base import EngineError, Prepared, Sampling
from ray_app.engine.manager import PoolManager
from ray_app.engine.pool import EnginePool
from ray_app.engine.scripted import ScriptedEngine
from ray_app.errors import RunError
from ray_app.system.claims import claim, release
from ray_app.train.settings import TrainSettings

pytestmark = pytest.mark.usefixtures("gpus")
Make = Callable[..., Any]
TRAINER = TrainSettings(workers=4, use_gpu=True, cpus_per_worker=0.5)


def gpus_come_to(expected: float) -> bool:
    """Whether so many GPUs are free, as soon as Ray tells so."""
    deadline = time.monotonic() + 60
    while ray.available_resources().get("GPU", 0) != expected:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


@pytest.fixture
def manager() -> Iterator[PoolManager]:
    pools = PoolManager("t", may_grow=False, sleeps=True)
    yield pools
    pools.close()
    assert gpus_come_to(4)


def pids(pool: EnginePool) -> list[int]:
    return [told["pid"] for told in ray.get([actor.ready.remote() for actor in pool.actors])]


def test_a_pool_sleeps_for_the_trainer_and_wakes_as_it_was(manager: PoolManager, scripted: Make) -> None:
    pool = manager.get("judge", scripted(replicas=2, tensor_parallel=2)).pool
    processes = pids(pool)
    assert gpus_come_to(0)
    manager.release_for_training(TRAINER)
    assert pool.asleep
    assert gpus_come_to(4)  # the trainer's to take
    trainer = claim(1.0, 4, 30)
    release(trainer)
    serving = manager.get("judge", scripted(replicas=2, tensor_parallel=2))
    assert (serving.how, serving.pool) == ("woken", pool)
    assert pids(pool) == processes
    assert gpus_come_to(0)
    assert manager.get("judge", scripted(replicas=2, tensor_parallel=2)).how == "reused"


def test_engines_know_which_gpus_are_theirs(manager: PoolManager, scripted: Make) -> None:
    pool = manager.get("judge", scripted(replicas=2, tensor_parallel=2)).pool
    seen = [one.place.gpus for one in pool.claims]
    assert sorted(gpu for place in seen for gpu in place) == ["0", "1", "2", "3"]


def test_where_its_gpus_went_to_another_the_engines_start_again(manager: PoolManager, scripted: Make) -> None:
    """Ray may give a pool of one GPU another one on waking: the engine still sits on the first."""
    pool = manager.get("judge", scripted()).pool
    slept_on = pool.claims[0].place
    pool.sleep()
    squatter = claim(1.0, 1, 30)
    try:
        assert squatter[0].place == slept_on  # Ray gives the first free one
        serving = manager.get("judge", scripted())
        assert serving.how == "started"
        assert serving.pool is not pool
        assert serving.pool.claims[0].place != slept_on
    finally:
        release(squatter)


def test_the_pool_in_the_way_of_another_sleeps_too(manager: PoolManager, scripted: Make) -> None:
    first = manager.get("generator", scripted(tensor_parallel=4)).pool
    second = manager.get("judge", scripted(model="other", tensor_parallel=4)).pool
    assert (first.asleep, second.asleep) == (True, False)
    assert manager.get("generator", scripted(tensor_parallel=4)).how == "woken"
    assert (first.asleep, second.asleep) == (False, True)
    assert gpus_come_to(0)


def test_a_pool_that_cannot_start_beside_sleepers_starts_without_them(
    manager: PoolManager, scripted: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = manager.get("generator", scripted(tensor_parallel=4)).pool
    real = EnginePool.start

    def start(pool: EnginePool) -> EnginePool:
        if first in manager.pools:
            raise RunError("judge: engine 0 did not start: too little memory is free")
        return real(pool)

    monkeypatch.setattr(EnginePool, "start", start)
    serving = manager.get("judge", scripted(model="other", tensor_parallel=4))
    assert serving.how == "started"
    assert manager.pools == [serving.pool]


def test_without_the_setting_pools_close(scripted: Make) -> None:
    manager = PoolManager("t", may_grow=False, sleeps=False)
    try:
        manager.get("judge", scripted(tensor_parallel=4))
        manager.release_for_training(TRAINER)
        assert manager.pools == []
        assert gpus_come_to(4)
    finally:
        manager.close()


def test_a_scripted_engine_would_tell_if_it_were_asked_in_its_sleep(scripted: Make) -> None:
    """What the tests above rely on."""
    engine = ScriptedEngine(scripted())
    question = Prepared([{"role": "user", "content": "Well?"}])

    async def ask() -> None:
        await engine.sleep()
        with pytest.raises(EngineError, match="asked while it sleeps"):
            await engine.generate(question, Sampling(), 0)
        await engine.wake("scripted")
        assert (await engine.generate(question, Sampling(), 0)).text

    asyncio.run(ask())


def test_an_engine_that_died_in_its_sleep_waits_to_be_asked(manager: PoolManager, scripted: Make) -> None:
    """Ray starts its process again at once, on GPUs that are the trainer's by now: no engine is built there."""
    pool = manager.get("judge", scripted()).pool
    (before,) = pids(pool)
    pool.sleep()
    os.kill(before, signal.SIGKILL)
    deadline = time.monotonic() + 120
    while True:
        with contextlib.suppress(ray.exceptions.RayActorError):
            (after,) = pids(pool)
            if after != before:
                break
        assert time.monotonic() < deadline
    assert ray.get(pool.actors[0].serving.remote()) == "", "no engine, so no weights"
    serving = manager.get("judge", scripted())
    assert (serving.how, serving.pool) == ("woken", pool)
    assert ray.get(pool.actors[0].serving.remote()) == "scripted"
