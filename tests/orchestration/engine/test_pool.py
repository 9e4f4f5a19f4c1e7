"""Pools and their manager on a local Ray, with scripted engines: what is taken is given back."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import ray

from ray_app.engine.base import Work, alone
from ray_app.engine.manager import PoolManager, same_shape
from ray_app.engine.pool import EnginePool
from ray_app.engine.settings import EngineSettings
from ray_app.errors import InputError, RunError
from ray_app.train.settings import TrainSettings

pytestmark = pytest.mark.usefixtures("cluster")
Make = Callable[..., Any]
SMALL = 0.1  # of a CPU: what Ray Data keeps for itself once a test of this Ray has used it


def cpus_come_to(expected: float) -> bool:
    """Whether so many CPUs are free, as soon as Ray tells so: it does some time after they were taken or given back."""
    deadline = time.monotonic() + 120
    while ray.available_resources().get("CPU", 0) != pytest.approx(expected, abs=SMALL):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def test_a_pool_takes_and_gives_back(scripted: Make) -> None:
    with EnginePool(scripted(cpus=1, replicas=2), "judge", "run").start() as pool:
        assert len(pool.actors) == 2
        assert pool.name.startswith("ste-run-judge-")
        assert ray.get_actor(f"{pool.name}-1") is not None
        assert cpus_come_to(2)
    assert pool.actors == []
    assert cpus_come_to(4)


def test_a_model_that_is_not_there_is_named_before_anything_starts(tmp_path: Path) -> None:
    settings = EngineSettings(model=str(tmp_path / "nowhere"), device="cpu")
    with pytest.raises(InputError, match=r"judge\.model: model path .*nowhere does not exist"):
        EnginePool(settings, "judge", "run").start()
    assert cpus_come_to(4)


def test_an_engine_that_does_not_start_tells_its_cause_in_one_line(scripted: Make) -> None:
    with pytest.raises(RunError, match=r"judge: engine 0 of scripted did not start: ValueError: .*'often'") as caught:
        EnginePool(scripted({"fail": "often"}, cpus=1), "judge", "run").start()
    assert "\n" not in str(caught.value)
    assert cpus_come_to(4)


def test_too_large_a_pool_fails_at_once_where_the_cluster_cannot_grow(scripted: Make) -> None:
    asked = r"judge: 9 engine\(s\) with 0 GPUs and 1 CPUs each are asked for"
    with pytest.raises(InputError, match=asked + r"; the cluster has 0 GPUs and 4 CPUs on 1 node\(s\), room for 4"):
        EnginePool(scripted(cpus=1, replicas=9), "judge", "run", may_grow=False).start()


def test_a_local_ray_never_grows(scripted: Make) -> None:
    manager = PoolManager("run")
    assert not manager.may_grow
    assert PoolManager("run", may_grow=True).may_grow  # the setting has the last word
    with pytest.raises(InputError, match="room for 0, and it does not grow by itself"):
        manager.get("judge", scripted(cpus=9))
    assert manager.pools == []


@pytest.mark.parametrize("shape", [{"cpus": 4}, {"cpus": 1, "replicas": 3}])
def test_engines_that_leave_no_cpu_for_their_rows_are_refused(scripted: Make, shape: dict[str, Any]) -> None:
    """Ray Data's reading task would wait for a CPU for ever."""
    with pytest.raises(InputError, match=r"judge\.cpus: .* leave . CPUs of the cluster's 4; the rows .* need 1\.1"):
        PoolManager("run").get("judge", scripted(**shape))


def test_where_gpus_may_still_come_the_device_is_not_guessed(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    manager = PoolManager("run", may_grow=True)
    with pytest.raises(InputError, match=r"judge\.device: auto cannot tell"):
        manager.get("judge", EngineSettings(model=str(tmp_path)))


def test_a_pool_waits_for_room_only_so_long(scripted: Make) -> None:
    with pytest.raises(RunError, match=r"1 engine.* not ready after 1 s"):
        EnginePool(scripted(cpus=9, start_timeout_s=1), "judge", "run").start()


def test_equal_settings_share_a_pool(scripted: Make) -> None:
    manager = PoolManager("run", may_grow=False)
    try:
        serving = manager.get("generator", scripted({"p": [1.0]}, cpus=1))
        first = serving.pool
        assert serving.how == "started"
        again = manager.get("judge", scripted({"p": [1.0]}, cpus=1))
        assert again.pool is first
        assert again.how == "reused"
        other = manager.get("judge", scripted({"p": [0.5]}, cpus=1)).pool
        assert manager.pools == [first, other]  # both fit
        third = manager.get("judge", scripted({"p": [0.1]}, cpus=1.5)).pool
        assert manager.pools == [other, third]  # the oldest made room, and no more than needed
    finally:
        manager.close()
    assert manager.pools == []
    assert cpus_come_to(4)


def test_pools_close_for_training_only_when_it_does_not_fit_beside(scripted: Make) -> None:
    manager = PoolManager("run", may_grow=False)
    try:
        manager.get("judge", scripted(cpus=2))
        manager.release_for_training(TrainSettings(workers=2, use_gpu=False, cpus_per_worker=1))
        assert len(manager.pools) == 1
        manager.release_for_training(TrainSettings(workers=3, use_gpu=False, cpus_per_worker=1))
        assert manager.pools == []
    finally:
        manager.close()


def test_side_by_side(scripted: Make) -> None:
    manager = PoolManager("run")
    one, other = scripted(cpus=1), scripted({"p": [1.0]}, cpus=1)
    assert manager.side_by_side(one, other) == (True, "0 GPUs and 4 CPUs are enough for scripted and scripted")
    large, other = scripted(cpus=3), scripted({"p": [1.0]}, cpus=3)
    assert manager.side_by_side(large, other) == (False, "0 GPUs and 4 CPUs are too few for scripted and scripted")
    assert manager.side_by_side(large, large) == (True, "the engines of scripted serve both")


def test_two_pools_at_the_same_time(scripted: Make) -> None:
    manager = PoolManager("run")
    one, other = scripted(cpus=1), scripted({"p": [1.0]}, cpus=1)
    try:
        old = manager.get("generator", scripted({"p": [0.1]}, cpus=2)).pool
        judge = manager.get("judge", other).pool
        served = manager.get_both(("generator", one), ("judge", other))
        assert [serving.pool.settings for serving in served] == [one.resolved(0), other.resolved(0)]
        assert (served[1].pool, served[1].how) == (judge, "reused"), "it stands in nobody's way"
        assert old not in manager.pools
        assert len({serving.pool for serving in manager.get_both(("generator", one), ("judge", one))}) == 1
    finally:
        manager.close()


def test_only_vllm_engines_of_the_same_shape_take_new_weights() -> None:
    one = EngineSettings(model="a", device="cpu")
    assert same_shape(one, EngineSettings(model="b", device="cpu"))
    assert not same_shape(one, EngineSettings(model="b", device="cpu", max_num_seqs=8))
    endpoint = {"base_url": "http://localhost/v1"}
    there = EngineSettings(model="a", kind="openai", endpoint=endpoint)
    assert not same_shape(there, there.model_copy(update={"model": "b"}))


def test_a_restarted_engine_serves_the_weights_it_is_asked_for(scripted: Make, units: Make, program: Make) -> None:
    """Ray builds it from its first arguments, whose weights may be gone: it has none until it is asked."""
    with EnginePool(scripted(), "judge", "run").start() as pool:
        (actor,) = pool.actors
        ray.get(actor.reload.remote("second"))
        before = ray.get(actor.ready.remote())["pid"]
        ray.kill(actor, no_restart=False)
        while ray.get(actor.ready.remote())["pid"] == before:
            time.sleep(0.1)
        assert ray.get(actor.serving.remote()) == ""
        ray.get(actor.run.remote([Work(program(), "judgments", 2, "second")], alone(units(1))))
        assert ray.get(actor.serving.remote()) == "second"
