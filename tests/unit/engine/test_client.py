"""The client stage on a local Ray: every unit arrives once, whatever the engines do."""

from __future__ import annotations

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

from ray_app.engine.client import drain, program_stage, run_program
from ray_app.engine.pool import EnginePool
from ray_app.errors import RunError
from ray_app.run.shards import closed_units, column_values, row_counts
from ray_app.run.writer_actor import start_writer
from ray_app.schema import JUDGMENTS

pytestmark = pytest.mark.usefixtures("cluster")
Make = Callable[..., Any]


def judged(tmp_path: Path, pool: EnginePool, dataset: Any, program: Any, total: int) -> dict[str, float]:
    writer = start_writer(str(tmp_path), JUDGMENTS)
    return run_program(dataset, pool, program, writer, stage="judgments", label="judging", total=total)


def table(tmp_path: Path) -> list[dict[str, Any]]:
    rows = [row for file in sorted(tmp_path.glob("shard-*.parquet")) for row in pq.read_table(file).to_pylist()]
    return sorted(rows, key=lambda r: (r["pair_id"], r["order"], r["sample"]))


def test_every_unit_is_written_once(tmp_path: Path, dataset: Make, units: Make, program: Make, scripted: Make) -> None:
    with EnginePool(scripted({"p": [0.3, 0.9]}, replicas=2), "judge", "t").start() as pool:
        counters = judged(tmp_path, pool, dataset(150), program(), 300)
        stats = pool.stats()
    rows = table(tmp_path)
    assert closed_units(str(tmp_path), ("pair_id", "order")) == {f"{u['pair_id']}:{u['order']}" for u in units(150)}
    assert len({(r["pair_id"], r["order"], r["sample"]) for r in rows}) == len(rows) == counters["samples"]
    assert counters["completion_tokens"] == sum(r["completion_tokens"] for r in rows)
    assert counters["kept"] == sum(r["kept"] for r in rows)
    assert sum(s["units"] for s in stats) == 300
    assert min(s["units"] for s in stats) > 50  # both replicas worked


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


def test_prompts_that_are_too_long_are_quarantined(
    tmp_path: Path, dataset: Make, program: Make, scripted: Make
) -> None:
    with EnginePool(scripted({"p": [1.0]}, max_model_len=20), "judge", "t").start() as pool:
        judged(tmp_path, pool, dataset(3), program(), 6)
    assert row_counts(str(tmp_path)) == (0, {"prompt_too_long": 6})


@pytest.mark.parametrize("pairs", [3, 200])
def test_an_engine_that_never_answers_stops_the_run_and_blames_no_row(
    tmp_path: Path, dataset: Make, program: Make, scripted: Make, pairs: int
) -> None:
    with (
        EnginePool(scripted({"fail": 1.0}), "judge", "t").start() as pool,
        pytest.raises(RunError, match="scripted failure"),
    ):
        judged(tmp_path, pool, dataset(pairs), program(), 2 * pairs)
    assert row_counts(str(tmp_path)) == (0, {})


def test_a_killed_engine_loses_no_rows(
    tmp_path: Path, dataset: Make, units: Make, program: Make, scripted: Make
) -> None:
    with EnginePool(scripted({"p": [0.5], "delay_s": 0.05}, replicas=2, max_num_seqs=4), "judge", "t").start() as pool:
        killer = threading.Timer(1.5, lambda: ray.kill(pool.actors[0], no_restart=False))
        killer.start()
        judged(tmp_path, pool, dataset(150), program(), 300)
        killer.join()
        assert ray.get(pool.actors[0].ready.remote())["fault"] is None  # Ray has built it anew
    assert closed_units(str(tmp_path), ("pair_id", "order")) == {f"{u['pair_id']}:{u['order']}" for u in units(150)}
    rows = table(tmp_path)
    assert len({(r["pair_id"], r["order"], r["sample"]) for r in rows}) == len(rows)


def test_an_engine_that_is_gone_for_good_is_left_out(
    tmp_path: Path, dataset: Make, program: Make, scripted: Make
) -> None:
    with EnginePool(scripted({"p": [1.0], "delay_s": 0.02}, replicas=2, max_num_seqs=4), "judge", "t").start() as pool:
        killer = threading.Timer(1.0, lambda: ray.kill(pool.actors[0], no_restart=True))
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


def test_a_row_over_its_time_limit_is_asked_again_and_then_named(
    tmp_path: Path, dataset: Make, program: Make, scripted: Make
) -> None:
    slow = scripted({"p": [1.0], "delay_s": 60}, request_timeout_s=0.2)
    with EnginePool(slow, "judge", "t").start() as pool:
        started = time.monotonic()
        with pytest.raises(RunError, match=r"over the same row.*pair_id"):
            judged(tmp_path, pool, dataset(1), program(), 2)
        assert time.monotonic() - started < 50  # it did not wait for the engine


class FatalWriter:
    """The writer's handle as the client has it; the client's process dies after a few calls."""

    def __init__(self, writer: Any, calls: int) -> None:
        self.writer, self.calls, self.add = writer, calls, self

    async def remote(self, finished: list[Any]) -> None:
        await self.writer.add.remote(finished)
        self.calls -= 1
        if not self.calls:
            os._exit(1)


def test_a_client_that_dies_ends_the_stage_and_nothing_is_written_twice(
    tmp_path: Path, dataset: Make, units: Make, program: Make, scripted: Make
) -> None:
    """Ray Data would run its batches again, units that are already written among them."""
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    with EnginePool(scripted({"p": [1.0], "delay_s": 0.02}, max_num_seqs=2), "judge", "t").start() as pool:
        writer = start_writer(str(tmp_path), JUDGMENTS)
        stage = program_stage(dataset(40), pool, program(), FatalWriter(writer, 5), stage="judgments")
        with pytest.raises(RunError):
            drain(stage, "judging")
        ray.get(writer.finish.remote())
        done = closed_units(str(tmp_path), ("pair_id", "order"))
        assert 5 <= len(done) < 80
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
        writers = [start_writer(str(first), JUDGMENTS), start_writer(str(second), JUDGMENTS)]
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
        writer = start_writer(str(tmp_path), JUDGMENTS, None, 10_000, 3600.0)
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
