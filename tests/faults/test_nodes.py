"""A node that goes, with two Ray nodes on this machine: what was in it is asked elsewhere, and nothing is lost."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import ray
import ray.data
from closed import closed_units
from loop_runs import ROOT
from ray.cluster_utils import Cluster

from ray_app.base.prompts import load_prompt
from ray_app.base.schema import JUDGMENTS
from ray_app.engine.base import Sampling
from ray_app.engine.pool import EnginePool
from ray_app.engine.settings import EngineSettings
from ray_app.engine.stream import run_program
from ray_app.errors import InputError
from ray_app.generation.programs.judge import JudgeProgram
from ray_app.generation.programs.rows import pair_units
from ray_app.run.shards import row_counts, shard_files
from ray_app.run.writer_actor import Table, start_writer

pytestmark = [pytest.mark.matrix, pytest.mark.timeout(900)]
PAIRS = 40


@pytest.fixture
def two_nodes(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Cluster, Any]]:
    """The node of the driver, and one more: of engines that take two CPUs each has room for one."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(p for p in (str(ROOT), os.environ.get("PYTHONPATH")) if p))
    store = 100 * 2**20
    head = {"num_cpus": 3, "object_store_memory": store, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        other = cluster.add_node(num_cpus=2, object_store_memory=store)
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


def test_rows_of_an_engine_whose_node_goes_are_asked_of_the_others(
    two_nodes: tuple[Cluster, Any], tmp_path: Path
) -> None:
    """No other node has room for it, so it does not come back: the stage goes on with what is left."""
    cluster, other = two_nodes
    table, gone = tmp_path / "table", tmp_path / "gone"
    script = {"p": [1.0], "hold": r"Question \d*[05]\?", "until": str(gone)}  # some rows of both are at work meanwhile
    with EnginePool(engine(script, replicas=2), "judge", "t").start() as pool:
        placed = {told["node"] for told in ray.get([actor.ready.remote() for actor in pool.actors])}
        assert len(placed) == 2

        def go() -> None:
            cluster.remove_node(other, allow_graceful=False)
            gone.touch()

        going = when(lambda: bool(shard_files(str(table))), go)
        writer = start_writer([Table(str(table), JUDGMENTS)], None, 8, 1.0)
        dataset = ray.data.from_arrow([pa.Table.from_pylist(units()[i::4]) for i in range(4)])
        run_program(dataset, pool, program(), writer, stage="judgments", label="judging", total=2 * PAIRS)
        going.join(60)
    assert closed_units(str(table), ("pair_id", "order")) == {f"{u['pair_id']}:{u['order']}" for u in units()}
    assert row_counts(str(table)) == (2 * PAIRS, {})  # each once: every first draw is right


def test_engines_that_no_node_has_room_for_are_told_at_once(two_nodes: tuple[Cluster, Any]) -> None:
    """Five CPUs in all, but three engines of two would need a third node."""
    with pytest.raises(InputError, match=r"3 engine\(s\) .* 5 CPUs on 2 node\(s\), room for 2"):
        EnginePool(engine({}, replicas=3), "judge", "t", may_grow=False).start()
