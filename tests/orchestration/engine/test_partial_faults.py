"""Partial faults on a live Ray: a row, an engine or a helper that fails costs itself alone (docs/reliability.md)."""

from __future__ import annotations

import sys
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
from faulting import CLIENT, WRITER, newest_child

from ray_app.base.schema import JUDGMENTS
from ray_app.engine.base import EngineError, Sampler, UnitResult
from ray_app.engine.manager import PoolManager
from ray_app.engine.pool import EnginePool
from ray_app.engine.stream import run_program
from ray_app.errors import RunError
from ray_app.generation.runner import Job, Runner, StageResult
from ray_app.run.shards import row_counts
from ray_app.run.storage import list_files, read_parquet
from ray_app.run.writer_actor import Table, start_writer

pytestmark = pytest.mark.usefixtures("cluster")
Make = Callable[..., Any]
ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # engines do not know this file
POISON = r"Question 7\?.*<response_a>\s*GOOD"  # one of the two orders of a pair
POISONED = "p000007:chosen_first"


@pytest.fixture(autouse=True)
def nothing_left(cluster: None) -> Iterator[None]:
    """Of actors and placement groups: what a fault has ended, or was built anew because of it, gives its room back."""
    yield
    deadline = time.monotonic() + 60
    while left := taken():
        assert time.monotonic() < deadline, left
        time.sleep(0.2)


def taken() -> dict[str, Any]:
    """What Ray counts as taken; actors that are told to be small (0.001 CPUs) are none."""
    cpus = ray.cluster_resources()["CPU"] - ray.available_resources().get("CPU", 0)
    groups = [one for one in ray.util.placement_group_table().values() if one["state"] != "REMOVED"]
    return {name: value for name, value in (("CPU", cpus > 0.05 and cpus), ("placement groups", groups)) if value}


def judged(directory: Path, pool: EnginePool, dataset: Any, program: Any, total: int) -> dict[str, float]:
    writer = start_writer([Table(str(directory), JUDGMENTS)])
    return run_program(dataset, pool, program, writer, stage="judgments", label="judging", total=total)


def whole(directory: Path, units: list[dict[str, Any]]) -> dict[str, int]:
    """Every unit is there once, with rows or a reason; the reasons, counted."""
    assert closed_units(str(directory), ("pair_id", "order")) == {f"{u['pair_id']}:{u['order']}" for u in units}
    rows = [row for file in list_files(str(directory), "shard-*.parquet") for row in read_parquet(file).to_pylist()]
    found = {(row["pair_id"], row["order"]) for row in rows}
    faults = quarantine(directory)
    assert len(rows) == len({(row["pair_id"], row["order"], row["sample"]) for row in rows})
    assert len(found) + len(faults) == len(units)
    return row_counts(str(directory))[1]


def quarantine(directory: Path) -> list[dict[str, Any]]:
    files = list_files(str(directory), "quarantine-*.parquet")
    return [row for file in files for row in read_parquet(file).to_pylist()]


def test_a_poison_row_is_quarantined_and_costs_no_other(
    tmp_path: Path,
    dataset: Make,
    units: Make,
    program: Make,
    scripted: Make,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Two rows go in one call here: the innocent one is answered too. The driver's log tells of each death."""
    with EnginePool(
        scripted({"p": [1.0], "kills": POISON}, replicas=2, max_num_seqs=128), "judge", "t"
    ).start() as pool:
        assert pool.settings.rows_per_call == 2
        judged(tmp_path, pool, dataset(30), program(), 60)
    assert whole(tmp_path, units(30)) == {"killed_engine": 1}
    (fault,) = quarantine(tmp_path)
    assert fault["id"] == POISONED
    assert "asked alone, the engine died" in fault["detail"]
    said = [record.getMessage() for record in caplog.records if record.name == "ray_app.system.progress"]
    assert any(line.startswith("judging: engine ") and "it is built anew" in line for line in said)
    assert any(f"judgments: {POISONED} is quarantined (killed_engine)" in line for line in said)


def test_an_engine_that_stands_still_is_replaced_and_loses_no_row(
    tmp_path: Path, dataset: Make, units: Make, program: Make, scripted: Make
) -> None:
    script = {"p": [1.0], "stalls": POISON, "stalls_once": str(tmp_path / "once")}
    with EnginePool(scripted(script, replicas=2, stall_timeout_s=2), "judge", "t").start() as pool:
        before = {told["pid"] for told in ray.get([actor.ready.remote() for actor in pool.actors])}
        judged(tmp_path / "table", pool, dataset(30), program(), 60)
        after = {told["pid"] for told in ray.get([actor.ready.remote() for actor in pool.actors])}
    assert whole(tmp_path / "table", units(30)) == {}
    assert len(before & after) == 1


def test_one_broken_replica_of_three_costs_no_row(
    tmp_path: Path, dataset: Make, units: Make, program: Make, scripted: Make
) -> None:
    script = {"p": [1.0], "broken": str(tmp_path / "broken")}
    with EnginePool(scripted(script, replicas=3), "judge", "t").start() as pool:
        judged(tmp_path / "table", pool, dataset(150), program(), 300)
        failures = sorted(told.get("failures", 0) for told in pool.stats())
    assert whole(tmp_path / "table", units(150)) == {}
    assert failures[:2] == [0, 0]
    assert failures[2] > 0, "it was asked, and erred"


def test_a_slow_sample_costs_its_row_alone(
    tmp_path: Path, dataset: Make, units: Make, program: Make, scripted: Make
) -> None:
    script = {"p": [1.0], "hold": POISON, "delay_s": 0.05}
    with EnginePool(scripted(script, request_timeout_s=3), "judge", "t").start() as pool:
        judged(tmp_path, pool, dataset(100), program(), 200)
    assert whole(tmp_path, units(100)) == {"timeout": 1}
    assert quarantine(tmp_path)[0]["id"] == POISONED


@pytest.mark.matrix
def test_an_engine_whose_start_fails_is_tried_again_with_the_weights_of_now(
    tmp_path: Path, dataset: Make, units: Make, program: Make, scripted: Make
) -> None:
    """It dies at work, and then does not start: what it was first started with may be gone."""
    go, blocked = tmp_path / "go", tmp_path / "no_start"
    script = {"p": [1.0], "hold": r"Question 2\d\?", "until": str(go), "no_start": str(blocked)}
    with EnginePool(scripted(script), "judge", "t").start() as pool:
        (actor,) = pool.actors
        ray.get(actor.reload.remote("second"))
        pool.settings = pool.settings.of_checkpoint("second")

        def fault() -> None:
            while not ray.get(actor.stats.remote()).get("units"):
                time.sleep(0.05)
            blocked.touch()
            ray.kill(actor, no_restart=False)
            go.touch()

        killer = threading.Thread(target=fault, daemon=True)
        killer.start()
        judged(tmp_path / "table", pool, dataset(30), program(), 60)
        killer.join()
        assert not blocked.exists(), "a start has failed"
        assert ray.get(actor.serving.remote()) == "second"
    assert whole(tmp_path / "table", units(30)) == {}


@pytest.fixture
def runner() -> Iterator[Runner]:
    pools = PoolManager("t")
    yield Runner(pools)
    pools.close()


def job_of(directory: Path, source: Any, program: Any, engine: Any, total: int) -> Job:
    return Job(
        stage="judgments",
        directory=str(directory),
        schema=JUDGMENTS,
        key=("pair_id", "order"),
        source=source,
        total=total,
        program=program,
        engine=engine,
        role="judge",
    )


@pytest.mark.parametrize("helper", [pytest.param(CLIENT, marks=pytest.mark.matrix), WRITER])
def test_a_helper_that_dies_costs_no_engine_and_no_row(
    tmp_path: Path, dataset: Make, units: Make, program: Make, scripted: Make, runner: Runner, helper: str
) -> None:
    """The stage goes on from its closed shards, in the same process, with the same engines."""
    go = tmp_path / "go"
    engine = scripted({"p": [1.0], "hold": r"Question 2\d\?", "until": str(go)}, max_num_seqs=4)
    pids: list[int] = []

    def fault() -> None:
        while not (runner.pools.pools and runner.pools.pools[0].started):
            time.sleep(0.05)
        (actor,) = runner.pools.pools[0].actors
        pids.append(ray.get(actor.ready.remote())["pid"])
        while not ray.get(actor.stats.remote()).get("units"):
            time.sleep(0.05)
        try:
            newest_child(helper).kill()
        finally:
            go.touch()

    killer = threading.Thread(target=fault, daemon=True)
    killer.start()
    result = runner.run(job_of(tmp_path / "table", dataset(30), program(), engine, 60))
    killer.join()
    (actor,) = runner.pools.pools[0].actors
    assert whole(tmp_path / "table", units(30)) == {}
    assert result.rows_out == 60
    assert [ray.get(actor.ready.remote())["pid"]] == pids, "the engine lives"


class FailsOn:
    """Asks like `program`; `fails` says for which numbers of pairs engines answer with an error."""

    def __init__(self, program: Any, fails: Callable[[int], bool]) -> None:
        self.program, self.fails, self.unit_of = program, fails, program.unit_of

    async def __call__(self, engine: Sampler, row: dict[str, Any]) -> UnitResult:
        if self.fails(int(row["pair_id"][1:])):
            raise EngineError("out of order")
        return await self.program(engine, row)


def test_answers_are_kept_where_a_stage_fails_and_errors_are_asked_again(
    tmp_path: Path, units: Make, program: Make, scripted: Make, runner: Runner
) -> None:
    def attempt(fails: Callable[[int], bool]) -> StageResult:
        engine = scripted({"p": [1.0]}, max_num_seqs=4)
        in_order = ray.data.from_arrow(pa.Table.from_pylist(units(80)))  # `dataset` deals them out to several blocks
        return runner.run(job_of(tmp_path, in_order, FailsOn(program(), fails), engine, 160))

    with pytest.raises(RunError, match="requests in a row failed: out of order"):
        attempt(lambda number: number >= 20)
    kept, _ = row_counts(str(tmp_path))
    assert kept >= 20, "no shard was full, none was old"
    second = attempt(lambda number: number == 70)
    assert second.extra["resumed_units"] == kept
    assert second.quarantined == {"engine_error": 2}
    third = attempt(lambda _: False)
    assert (third.rows_out, third.quarantined) == (160, {})
    assert third.extra["resumed_units"] == 158
    assert whole(tmp_path, units(80)) == {}
