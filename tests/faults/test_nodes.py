"""A node that goes, with two Ray nodes on this machine: what was at work in it goes on elsewhere; nothing is lost."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import ray
import ray.data
from closed import closed_units
from integration.train.train_runs import judged, run, small, write_rows
from loop_runs import ROOT
from ray.cluster_utils import Cluster
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.state import list_actors

from ray_app.base.prompts import load_prompt
from ray_app.base.schema import JUDGMENTS, TRAIN_SFT
from ray_app.engine.base import Sampling
from ray_app.engine.manager import PoolManager
from ray_app.engine.pool import EnginePool
from ray_app.engine.settings import EngineSettings
from ray_app.engine.stream import run_program
from ray_app.errors import InputError
from ray_app.generation.programs.judge import JudgeProgram
from ray_app.generation.programs.rows import pair_units
from ray_app.run.shards import row_counts, shard_files
from ray_app.run.writer_actor import Table, start_writer
from ray_app.system import precision
from ray_app.train.launch import START_TIMEOUT_S
from ray_app.train.standby import Standby

pytestmark = [pytest.mark.matrix, pytest.mark.timeout(900)]
PAIRS = 40
STAND_INS = ROOT / "tests" / "stand_ins"
STORE = 100 * 2**20


@pytest.fixture
def two_nodes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Cluster, Any]]:
    """The node of the driver, with three CPUs unless a test says otherwise (or more: what Ray counts there), and one
    more with two.
    """
    paths = (str(ROOT), str(STAND_INS), os.environ.get("PYTHONPATH"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path for path in paths if path))
    asked = getattr(request, "param", 3)
    head = {**(asked if isinstance(asked, dict) else {"num_cpus": asked}), "object_store_memory": STORE}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        other = cluster.add_node(num_cpus=2, object_store_memory=STORE)
        cluster.wait_for_nodes()
        ray.init(address=cluster.address, log_to_driver=False)
        yield cluster, other
    finally:
        ray.shutdown()
        cluster.shutdown()


def units() -> list[dict[str, Any]]:
    """Both orders of some pairs."""
    pairs = [{"pair_id": f"p{i:06d}", "instruction": f"Question {i}?"} for i in range(PAIRS)]
    texts = [{"chosen": f"GOOD answer {i}", "rejected": f"poor answer {i}"} for i in range(PAIRS)]
    return [unit for pair, both in zip(pairs, texts, strict=True) for unit in pair_units({**pair, **both})]


def program() -> JudgeProgram:
    return JudgeProgram(
        prompt=load_prompt("judge_pairwise_small"),
        sampling=Sampling(max_tokens=64),
        mode="until_correct",
        samples=4,
        judge="scripted",
        run_seed=7,
        iteration=1,
        stage="judgments",
        key=("pair_id", "order"),
    )


def engine(script: dict[str, Any], **more: Any) -> EngineSettings:
    return EngineSettings(model="scripted", kind="scripted", cpus=2, max_num_seqs=8, script=script, **more)


def when(reached: Callable[[], bool], act: Callable[[], None]) -> threading.Thread:
    """Do something as soon as something else has come to be."""

    def wait() -> None:
        while not reached():
            time.sleep(0.05)
        act()

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    return thread


def stage(pool: EnginePool, table: Path) -> None:
    """Judge all units."""
    writer = start_writer([Table(str(table), JUDGMENTS)], None, 8, 1.0)
    dataset = ray.data.from_arrow([pa.Table.from_pylist(units()[i::4]) for i in range(4)])
    run_program(dataset, pool, program(), writer, stage="judgments", label="judging", total=2 * PAIRS)


def require_all(table: Path) -> None:
    assert closed_units(str(table), ("pair_id", "order")) == {f"{u['pair_id']}:{u['order']}" for u in units()}
    assert row_counts(str(table)) == (2 * PAIRS, {})  # each once: every first draw is right


def placed(pool: EnginePool) -> set[str]:
    return {told["node"] for told in ray.get([actor.ready.remote() for actor in pool.actors])}


def hold(**resources: float) -> PlacementGroup:
    """Keep something of the driver's node from all others."""
    here = {"ray.io/node-id": ray.get_runtime_context().get_node_id()}
    taken = placement_group([dict(resources)], bundle_label_selector=[here])
    ray.get(taken.ready(), timeout=60)
    return taken


def until_dead(nodes: int) -> None:
    """Ray's head tells a node from a slow one after some seconds."""
    deadline = time.monotonic() + 120
    while sum(not node["Alive"] for node in ray.nodes()) < nodes:
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_rows_of_an_engine_whose_node_goes_are_asked_of_the_others(
    two_nodes: tuple[Cluster, Any], tmp_path: Path
) -> None:
    """No other node has room for it, so it does not come back: the stage goes on with what is left."""
    cluster, other = two_nodes
    table, gone = tmp_path / "table", tmp_path / "gone"
    script = {"p": [1.0], "hold": r"Question \d*[05]\?", "until": str(gone)}  # some rows of both are at work meanwhile
    with EnginePool(engine(script, replicas=2), "judge", "t").start() as pool:
        assert len(placed(pool)) == 2

        def go() -> None:
            cluster.remove_node(other, allow_graceful=False)
            gone.touch()

        going = when(lambda: bool(shard_files(str(table))), go)
        stage(pool, table)
        going.join(60)
        until_dead(1)
        assert len(pool.stats()) == 1, "of the other, which Ray finds no node for, nobody waits"
    require_all(table)


@pytest.mark.parametrize("two_nodes", [4], indirect=True)
def test_later_stages_go_on_with_the_engines_that_a_lost_node_leaves(
    two_nodes: tuple[Cluster, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Through a reload, another pool and a restart of the command; with all of them again when a node has come."""
    cluster, other = two_nodes
    hold(CPU=1)  # a node has room for one engine
    checkpoint = tmp_path / "checkpoint"
    checkpoint.mkdir()
    (checkpoint / "config.json").write_text("{}")
    wanted, manager = engine({"p": [1.0]}, replicas=2), PoolManager("t", may_grow=False)
    try:
        pool = manager.get("judge", wanted).pool
        assert len(placed(pool)) == 2
        cluster.remove_node(other, allow_graceful=False)
        until_dead(1)
        pool.reload(str(checkpoint))
        assert "judge: 1 of 2 engines go on: a node has died" in caplog.text
        again = manager.get("judge", wanted.of_checkpoint(str(checkpoint)))
        assert (again.how, again.pool, len(pool.actors)) == ("reused", pool, 1)
        stage(pool, tmp_path / "second")
        require_all(tmp_path / "second")

        PoolManager("restarted", may_grow=False).require_room("judge", wanted)
        with pytest.raises(InputError, match=r"4 engine\(s\) .* 4 CPUs on 1 node\(s\), room for 2"):
            PoolManager("restarted", may_grow=False).require_room("judge", engine({}, replicas=4))
        fewer = manager.get("judge", wanted).pool
        assert (len(fewer.actors), manager.pools) == (1, [fewer])
        assert "judge: 1 of 2 engines start: a node has died, others have no room" in caplog.text
        stage(fewer, tmp_path / "third")
        require_all(tmp_path / "third")

        cluster.add_node(num_cpus=2, object_store_memory=STORE)
        cluster.wait_for_nodes()
        assert len(placed(manager.get("judge", engine({"p": [0.5]}, replicas=2)).pool)) == 2
    finally:
        manager.close()


@pytest.mark.parametrize("asleep", [False, True])
@pytest.mark.parametrize("two_nodes", [{"num_cpus": 4, "num_gpus": 2}], indirect=True)
def test_gpus_that_ray_gives_the_claim_of_a_lost_engine_are_free_again(
    two_nodes: tuple[Cluster, Any], asleep: bool
) -> None:
    """Its claim moves to the next free GPU, where no engine can follow it. A sleeper has no claim to move."""
    cluster, _ = two_nodes
    taken = hold(GPU=1)
    on_gpu = EngineSettings(model="scripted", kind="scripted", device="cuda", cpus=0, replicas=2)
    gone = cluster.add_node(num_cpus=1, num_gpus=1, object_store_memory=STORE)
    cluster.wait_for_nodes()
    manager = PoolManager("t", may_grow=False, sleeps=True)
    try:
        pool = manager.get("judge", on_gpu).pool
        assert len(placed(pool)) == 2
        if asleep:
            pool.sleep()
        cluster.remove_node(gone, allow_graceful=False)
        until_dead(1)
        if not asleep:
            remove_placement_group(taken)
            assert free_gpus_come_to(0), "Ray has moved the claim"
            assert manager.get("judge", on_gpu).pool is pool
            assert free_gpus_come_to(1)
            pool.sleep()
            assert free_gpus_come_to(2)
            hold(GPU=1)  # the first one, which the engine does not sit on
        assert manager.get("judge", on_gpu).how == "woken"
        assert (manager.pools, len(pool.actors), len(pool.claims)) == ([pool], 1, 1)
        assert free_gpus_come_to(0)
    finally:
        manager.close()
    assert free_gpus_come_to(1)


def free_gpus_come_to(expected: float) -> bool:
    deadline = time.monotonic() + 60
    while (free := ray.available_resources().get("GPU", 0)) != expected and time.monotonic() < deadline:
        time.sleep(0.2)
    return free == expected


def test_engines_that_no_node_has_room_for_are_told_at_once(two_nodes: tuple[Cluster, Any]) -> None:
    """Five CPUs in all, but three engines of two would need a third node."""
    with pytest.raises(InputError, match=r"3 engine\(s\) .* 5 CPUs on 2 node\(s\), room for 2"):
        EnginePool(engine({}, replicas=3), "judge", "t", may_grow=False).start()


Fault = Callable[[], None]


@pytest.fixture(scope="module")
def sft_file(tmp_path_factory: pytest.TempPathFactory) -> str:
    rows = [{**row, "completion": row["correct"]} for row in map(judged, range(24))]
    return write_rows(tmp_path_factory, "sft", [{n: row.get(n) for n in TRAIN_SFT.names} for row in rows], TRAIN_SFT)


@pytest.fixture
def resumed(
    two_nodes: tuple[Cluster, Any], shallow: str, sft_file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., None]:
    """Train with two workers of two CPUs; the third step waits until a fault is done, the second has left a checkpoint.
    The same steps with the same losses come of it as of a training that is left alone. `waited`: the nodes of workers
    that are there before the training is.
    """

    def train(fault: Fault, waited: Sequence[str] = ()) -> None:
        monkeypatch.syspath_prepend(STAND_INS)
        state = tmp_path / "state"
        state.mkdir()
        hold = state / "hold-3"
        hold.touch()

        def go() -> None:
            try:
                fault()
            finally:
                hold.unlink()

        going = when(lambda: bool(list(state.glob("*/ray/checkpoint_manager_snapshot.json"))), go)
        settings = small(checkpoint_every=2, cpus_per_worker=2, tracking={"to": ("wandb",), "project": str(state)})
        standby = None
        if waited:
            settings = settings.decided(precision.decided({"cpu"}))
            standby = Standby.start(settings, shallow, None, str(state), waited)
        found = run(settings, tmp_path, sft_file, shallow, standby=standby)
        going.join(60)
        assert [point["step"] for point in found.metrics] == [1, 2, 3, 4]
        undisturbed = run(small(checkpoint_every=2, cpus_per_worker=2), tmp_path / "undisturbed", sft_file, shallow)
        assert found.losses == pytest.approx(undisturbed.losses, rel=1e-4)

    return train


def nodes_of_workers(cluster: Cluster) -> set[str]:
    alive = [("class_name", "=", "RayTrainWorker"), ("state", "=", "ALIVE")]
    return {actor.node_id for actor in list_actors(address=cluster.address, filters=alive)}


@pytest.mark.parametrize("two_nodes", [5], indirect=True)
def test_a_training_goes_on_where_there_is_room_after_a_node_with_a_worker_has_gone(
    two_nodes: tuple[Cluster, Any], resumed: Callable[..., None]
) -> None:
    """Each node has room for one worker of two CPUs. As one goes, there comes to be room for both on the other."""
    cluster, other = two_nodes
    taken = hold(CPU=2)
    found: set[str] = set()

    def goes() -> None:
        found.update(nodes_of_workers(cluster))
        cluster.remove_node(other, allow_graceful=False)
        remove_placement_group(taken)

    resumed(goes)
    assert len(found) == 2


@pytest.mark.parametrize("two_nodes", [5], indirect=True)
def test_workers_that_waited_for_their_training_need_not_be_on_the_node_that_goes(
    two_nodes: tuple[Cluster, Any], resumed: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    """They are bound to their nodes by name; the ones that go on in their place take what room there is."""
    cluster, other = two_nodes
    here = ray.get_runtime_context().get_node_id()
    there = next(node["NodeID"] for node in ray.nodes() if node["NodeID"] != here)
    found: set[str] = set()
    started = time.monotonic()

    def goes() -> None:
        nonlocal started
        found.update(nodes_of_workers(cluster))
        cluster.remove_node(other, allow_graceful=False)
        started = time.monotonic()

    resumed(goes, [here, there])
    assert found == {here, there}
    assert "a node of the training workers that waited is gone: others start" in caplog.text
    assert time.monotonic() - started < START_TIMEOUT_S  # Ray Train's time-out for a group that finds no room


def test_a_training_that_no_node_has_room_for_says_so_and_goes_on_when_one_comes(
    two_nodes: tuple[Cluster, Any],
    resumed: Callable[..., None],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cluster, other = two_nodes
    # The main thread trains, so another one adds the node; only the main thread may set a handler of signals.
    monkeypatch.setattr(ray._private.utils, "set_sigterm_handler", lambda _: None)
    started = time.monotonic()
    waited: list[float] = []

    def told() -> bool:
        return "training waits for room: 2 workers with 2 CPUs each, and 1 node(s)" in caplog.text

    def comes() -> None:
        waited.append(time.monotonic() - started)
        cluster.add_node(num_cpus=2, object_store_memory=STORE)
        threading.Event().wait(900)  # the processes of a node end with the thread that has started them

    def goes() -> None:
        nonlocal started
        cluster.remove_node(other, allow_graceful=False)
        started = time.monotonic()

    when(told, comes)
    resumed(goes)
    assert "training: there is room again" in caplog.text
    assert waited[0] < 60  # the limit that docs/reliability.md names
