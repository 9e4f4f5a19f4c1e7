"""The client stage on a local Ray: every unit arrives once, whatever the engines do."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray
from closed import closed_units

from ray_app.base.schema import JUDGMENTS
from ray_app.engine.base import Engine, UnitResult
from ray_app.engine.pool import EnginePool
from ray_app.engine.stream import HelperLost, drain, program_stage, run_program
from ray_app.errors import RunError
from ray_app.run.shards import column_values, row_counts
from ray_app.run.writer_actor import Table, start_writer

pytestmark = pytest.mark.usefixtures("cluster")
Make = Callable[..., Any]
ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # engines and clients do not know this file


def judged(tmp_path: Path, pool: EnginePool, dataset: Any, program: Any, total: int) -> dict[str, float]:
    writer = start_writer([Table(str(tmp_path), JUDGMENTS)])
    return run_program(dataset, pool, program, writer, stage="judgments", label="judging", total=total)


def table(tmp_path: Path) -> list[dict[str, Any]]:
    rows = [row for file in sorted(tmp_path.glob("shard-*.parquet")) for row in pq.read_table(file).to_pylist()]
    return sorted(rows, key=lambda r: (r["pair_id"], r["order"], r["sample"]))


def test_every_unit_is_written_once(tmp_path: Path, dataset: Make, units: Make, program: Make, scripted: Make) -> None:
    with EnginePool(scripted({"p": [0.3, 0.9]}, replicas=2), "judge", "t").start() as pool:
        counters = judged(tmp_path, pool, dataset(150), program(), 300)
        answered = sum(replica["units"] for replica in pool.stats())
    rows = table(tmp_path)
    assert closed_units(str(tmp_path), ("pair_id", "order")) == {f"{u['pair_id']}:{u['order']}" for u in units(150)}
    assert len({(r["pair_id"], r["order"], r["sample"]) for r in rows}) == len(rows) == counters["samples"]
    assert counters["completion_tokens"] == sum(r["completion_tokens"] for r in rows)
    assert counters["kept"] == sum(r["kept"] for r in rows)
    assert answered == 300


@ray.remote(num_cpus=0, max_concurrency=1000)
class Barrier:
    """`arrive` returns once so many have called it."""

    def __init__(self, count: int) -> None:
        self.missing, self.complete = count, asyncio.Event()

    async def arrive(self) -> None:
        self.missing -= 1
        if not self.missing:
            self.complete.set()
        await self.complete.wait()


class Together:
    """Asks like `program`, once all units have arrived at an engine."""

    def __init__(self, program: Any, barrier: Any) -> None:
        self.program, self.barrier, self.unit_of = program, barrier, program.unit_of

    async def __call__(self, engine: Engine, row: dict[str, Any]) -> UnitResult:
        await self.barrier.arrive.remote()
        return await self.program(engine, row)


@pytest.mark.long
def test_replicas_share_the_rows(tmp_path: Path, units: Make, program: Make, scripted: Make) -> None:
    """As long as none has answered, and so none is the faster one. All rows are in flight at once here."""
    with EnginePool(scripted({"p": [1.0]}, replicas=3, max_num_seqs=64), "judge", "t").start() as pool:
        assert pool.settings.in_flight * 3 >= 300
        rows = ray.data.from_arrow(pa.Table.from_pylist(units(150)))
        judged(tmp_path, pool, rows, Together(program(), Barrier.remote(300)), 300)
        assert [replica["units"] for replica in pool.stats()] == [100, 100, 100]


@pytest.mark.long
def test_rows_do_not_depend_on_replicas_or_order(tmp_path: Path, dataset: Make, program: Make, scripted: Make) -> None:
    tables = []
    for name, replicas, data in (("a", 1, dataset(20)), ("b", 3, dataset(20).random_shuffle(seed=3))):
        with EnginePool(scripted({"p": [0.2, 0.8]}, replicas=replicas), "judge", "t").start() as pool:
            judged(tmp_path / name, pool, data, program(), 40)
        tables.append(table(tmp_path / name))
    assert tables[0] == tables[1]


def test_rows_that_fail_on_their_own_are_quarantined(
    tmp_path: Path, dataset: Make, program: Make, scripted: Make
) -> None:
    with EnginePool(scripted({"p": [1.0], "fail": 0.1}), "judge", "t").start() as pool:
        judged(tmp_path, pool, dataset(60), program(), 120)
    rows, quarantined = row_counts(str(tmp_path))
    assert set(quarantined) == {"engine_error"}
    assert 0 < quarantined["engine_error"] < 40
    assert rows + quarantined["engine_error"] == 120


@pytest.mark.long
def test_prompts_that_are_too_long_are_quarantined(
    tmp_path: Path, dataset: Make, program: Make, scripted: Make
) -> None:
    with EnginePool(scripted({"p": [1.0]}, max_model_len=20), "judge", "t").start() as pool:
        judged(tmp_path, pool, dataset(3), program(), 6)
    assert row_counts(str(tmp_path)) == (0, {"prompt_too_long": 6})


@pytest.mark.parametrize("pairs", [3, pytest.param(200, marks=pytest.mark.matrix)])
def test_an_engine_that_never_answers_stops_the_run_and_blames_no_row(
    tmp_path: Path, dataset: Make, program: Make, scripted: Make, pairs: int
) -> None:
    with (
        EnginePool(scripted({"fail": 1.0}), "judge", "t").start() as pool,
        pytest.raises(RunError, match="scripted failure"),
    ):
        judged(tmp_path, pool, dataset(pairs), program(), 2 * pairs)
    assert row_counts(str(tmp_path)) == (0, {})


@pytest.mark.parametrize("pairs", [2, pytest.param(60, marks=pytest.mark.matrix)])
def test_an_engine_that_refuses_all_is_a_fault_of_the_whole(
    tmp_path: Path, dataset: Make, program: Make, scripted: Make, pairs: int
) -> None:
    """Its own words, and no row is blamed, however few there are (a model that takes no `max_tokens`, say)."""
    with EnginePool(scripted({"refuse": 1.0}), "judge", "t").start() as pool:
        with pytest.raises(RunError, match="scripted refusal"):
            judged(tmp_path, pool, dataset(pairs), program(), 2 * pairs)
        assert row_counts(str(tmp_path)) == (0, {})


@pytest.mark.matrix
def test_a_row_that_is_refused_where_others_were_answered_is_quarantined(
    tmp_path: Path, dataset: Make, program: Make, scripted: Make
) -> None:
    """Also when it alone is left to a later attempt: that must come to an end."""
    with EnginePool(scripted({"p": [1.0]}), "judge", "t").start() as pool:
        judged(tmp_path, pool, dataset(3), program(), 6)
    rows, _ = row_counts(str(tmp_path))
    with EnginePool(scripted({"refuse": 1.0}), "judge", "t").start() as pool:
        judged(tmp_path, pool, dataset(1), program(), 2)
    assert row_counts(str(tmp_path)) == (rows, {"refused": 2})


class Killer(threading.Thread):
    """Kills an engine once it has answered, in the midst of its work: `hold` is answered only after the kill."""

    def __init__(self, pool: EnginePool, go: Path, *, no_restart: bool) -> None:
        super().__init__(daemon=True)
        self.pool, self.go, self.no_restart = pool, go, no_restart

    def run(self) -> None:
        actor = self.pool.actors[0]
        while not ray.get(actor.stats.remote()).get("units"):
            time.sleep(0.05)
        ray.kill(actor, no_restart=self.no_restart)
        self.go.touch()


def test_a_killed_engine_loses_no_rows(
    tmp_path: Path, dataset: Make, units: Make, program: Make, scripted: Make
) -> None:
    go = tmp_path / "go"
    script = {"p": [0.5], "delay_s": 0.01, "hold": r"Question 1[0-4]\d\?", "until": str(go)}
    with EnginePool(scripted(script, replicas=2, max_num_seqs=4), "judge", "t").start() as pool:
        before = ray.get(pool.actors[0].ready.remote())["pid"]
        killer = Killer(pool, go, no_restart=False)
        killer.start()
        judged(tmp_path, pool, dataset(150), program(), 300)
        killer.join()
        after = ray.get(pool.actors[0].ready.remote())
    assert after["fault"] is None
    assert after["pid"] != before  # Ray has built it anew
    assert closed_units(str(tmp_path), ("pair_id", "order")) == {f"{u['pair_id']}:{u['order']}" for u in units(150)}
    rows = table(tmp_path)
    assert len({(r["pair_id"], r["order"], r["sample"]) for r in rows}) == len(rows)


def test_an_engine_that_is_gone_for_good_is_left_out(
    tmp_path: Path, dataset: Make, program: Make, scripted: Make
) -> None:
    go = tmp_path / "go"
    script = {"p": [1.0], "delay_s": 0.01, "hold": r"Question 1[0-4]\d\?", "until": str(go)}
    with EnginePool(scripted(script, replicas=2, max_num_seqs=4), "judge", "t").start() as pool:
        killer = Killer(pool, go, no_restart=True)
        killer.start()
        counters = judged(tmp_path, pool, dataset(150), program(), 300)
        killer.join()
    assert counters["kept"] == 300


def test_no_engine_left_is_an_error_in_one_line(tmp_path: Path, dataset: Make, program: Make, scripted: Make) -> None:
    with EnginePool(scripted({"p": [1.0]}), "judge", "t").start() as pool:
        ray.kill(pool.actors[0], no_restart=True)
        with pytest.raises(RunError, match="every engine died") as caught:
            judged(tmp_path, pool, dataset(4), program(), 8)
    assert "\n" not in str(caught.value)


class FatalWriter:
    """The writer's handle as the client has it; the client's process dies once so many units are written."""

    def __init__(self, writer: Any, units: int, dead: Path) -> None:
        self.writer, self.units, self.dead, self.add = writer, units, dead, self

    async def remote(self, finished: list[Any]) -> None:
        await self.writer.add.remote(finished)
        self.units -= len(finished)
        if self.units <= 0:
            self.dead.touch()
            os._exit(1)


def test_a_client_that_dies_ends_its_stream_and_nothing_is_written_twice(
    tmp_path: Path, dataset: Make, units: Make, program: Make, scripted: Make
) -> None:
    """Ray Data would run its batches again, units that are already written among them. However few calls the writer
    gets: half of the units are answered only after the client's death.
    """
    dead = tmp_path / "dead"
    script = {"p": [1.0], "hold": r"Question [23]\d\?", "until": str(dead)}
    with EnginePool(scripted(script, max_num_seqs=2), "judge", "t").start() as pool:
        writer = start_writer([Table(str(tmp_path), JUDGMENTS)])
        stage = program_stage(dataset(40), pool, program(), FatalWriter(writer, 5, dead), stage="judgments")
        with pytest.raises(HelperLost):
            drain(stage, "judging")
        ray.get(writer.finish.remote())
        done = closed_units(str(tmp_path), ("pair_id", "order"))
        assert 5 <= len(done) <= 40
        rest = [u for u in units(40) if f"{u['pair_id']}:{u['order']}" not in done]
        judged(tmp_path, pool, ray.data.from_arrow(pa.Table.from_pylist(rest)), program(), len(rest))
    rows = table(tmp_path)
    assert len(rows) == len({(r["pair_id"], r["order"]) for r in rows}) == 80


def test_a_stage_can_hand_its_rows_to_the_next(tmp_path: Path, dataset: Make, program: Make, scripted: Make) -> None:
    """Both stages stand in one Ray Data graph; both tables are written."""
    first, second = tmp_path / "first", tmp_path / "second"
    with (
        EnginePool(scripted({"p": [1.0]}), "generator", "t").start() as a,
        EnginePool(scripted({"p": [0.5], "delay_s": 0.01}), "judge", "t").start() as b,
    ):
        writers = [start_writer([Table(str(first), JUDGMENTS)]), start_writer([Table(str(second), JUDGMENTS)])]
        rows = program_stage(dataset(100), a, program(), writers[0], stage="pairs", emit=JUDGMENTS)
        again = rows.map(_unit_again)
        units, held = drain(program_stage(again, b, program(), writers[1], stage="judgments"), "judging")
        ray.get([writer.finish.remote() for writer in writers])
    assert (units, held) == (200, [])
    assert row_counts(str(first))[0] == 200
    assert len({(r["pair_id"], r["order"]) for r in table(second)}) == 200


def test_rows_are_handed_on_only_from_closed_shards(
    tmp_path: Path, dataset: Make, program: Make, scripted: Make
) -> None:
    """Here no shard fills and none grows old: they close because the stage has nothing else to do."""
    handed = 0
    with EnginePool(scripted({"p": [0.5]}), "generator", "t").start() as pool:
        writer = start_writer([Table(str(tmp_path), JUDGMENTS)], None, 10_000, 3600.0)
        stage = program_stage(dataset(80), pool, program(), writer, stage="pairs", emit=JUDGMENTS)
        for batch in stage.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
            assert set(batch.column("pair_id").to_pylist()) <= set(column_values(str(tmp_path), "pair_id"))
            handed += batch.num_rows
    assert handed == row_counts(str(tmp_path))[0] > 160


def _unit_again(row: dict[str, Any]) -> dict[str, Any]:
    gold = {"chosen_first": "A", "rejected_first": "B"}[row["order"]]
    sides = ("GOOD", "poor") if gold == "A" else ("poor", "GOOD")
    return {
        "id": row["pair_id"],
        "pair_id": row["pair_id"],
        "order": row["order"],
        "instruction": row["text"],
        "first": sides[0],
        "second": sides[1],
        "gold": gold,
    }
