"""Real vLLM in Ray actors on CPU: text, reload, a killed engine, tensor parallelism."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray
from closed import closed_units

from ray_app.base.schema import JUDGMENTS
from ray_app.engine.base import Engine, UnitResult, Work, alone
from ray_app.engine.manager import PoolManager
from ray_app.engine.pool import EnginePool
from ray_app.engine.stream import run_program
from ray_app.errors import RunError
from ray_app.generation.programs.judge import JudgeProgram
from ray_app.run.writer_actor import Table, start_writer

pytestmark = pytest.mark.usefixtures("cluster")
Make = Callable[..., Any]
ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # engines do not know this file


def texts(pool: EnginePool, program: JudgeProgram, rows: list[dict[str, Any]]) -> list[str]:
    results = ray.get(pool.actors[0].run.remote([Work(program, "judgments", 1, pool.model)], alone(rows)))
    assert not [r.quarantine for r in results if r.quarantine]
    return [row["text"] for r in results for row in r.rows]


def test_text_with_and_without_a_stop_string_is_decoded_alike(
    manager: PoolManager, engine: Make, units: Make, sampled: JudgeProgram
) -> None:
    """Without stop strings vLLM is spared to decode token by token: the text must not change."""
    stopping = replace(sampled, sampling=replace(sampled.sampling, stop=("[[never]]",), include_stop=True))
    pool = manager.get("judge", engine()).pool
    plain = texts(pool, sampled, units(4))
    assert plain == texts(pool, stopping, units(4))
    assert len(set(plain)) > 4
    assert texts(pool, sampled, units(4)) == plain  # same seeds, same batch: same text


def test_greedy_text_and_new_weights_in_a_living_engine(
    manager: PoolManager,
    engine: Make,
    units: Make,
    greedy: JudgeProgram,
    model: str,
    trained: str,
    by_transformers: Make,
) -> None:
    """The text is that of transformers; after a reload it is that of an engine started on the new weights."""
    rows = units(3)
    pool = manager.get("judge", engine()).pool
    first = texts(pool, greedy, rows)
    assert first == by_transformers(model, greedy, rows)
    serving = manager.get("judge", engine(model=trained))
    assert serving.pool is pool
    assert serving.how == "reloaded"
    reloaded = texts(pool, greedy, rows)
    assert reloaded != first
    assert reloaded == by_transformers(trained, greedy, rows)
    assert manager.get("judge", engine()).pool is pool
    assert texts(pool, greedy, rows) == first
    with EnginePool(engine(model=trained), "judge", "t").start() as fresh:
        assert texts(fresh, greedy, rows) == reloaded


def test_tokens_are_counted_while_they_are_made(
    manager: PoolManager, engine: Make, units: Make, greedy: JudgeProgram
) -> None:
    """Before the first row is finished, and exactly once it is."""
    pool, rows = manager.get("judge", engine()).pool, units(2)[:1]
    actor, long = pool.actors[0], replace(greedy, sampling=replace(greedy.sampling, max_tokens=300))
    before = ray.get(actor.generated.remote())
    answer = actor.run.remote([Work(long, "judgments", 1, pool.model)], alone(rows))
    seen = before
    while seen == before:
        seen = ray.get(actor.generated.remote())
    assert not ray.wait([answer], timeout=0)[0], "the first tokens came with the finished row"
    made = sum(row["completion_tokens"] for result in ray.get(answer) for row in result.rows)
    assert ray.get(actor.generated.remote()) - before == made
    assert seen - before < made


class Held:
    """Asks like `program`, but some units only once the file `go` is there."""

    def __init__(self, program: JudgeProgram, units: set[str], go: Path) -> None:
        self.program, self.units, self.go = program, units, go

    def unit_of(self, row: dict[str, Any]) -> str:
        return self.program.unit_of(row)

    async def __call__(self, engine: Engine, row: dict[str, Any]) -> UnitResult:
        while self.unit_of(row) in self.units and not self.go.exists():
            await asyncio.sleep(0.05)
        return await self.program(engine, row)


def killed_at_work(actor: Any, go: Path) -> None:
    """Kill an engine once it has answered a row, then let the held ones go."""
    while not ray.get(actor.stats.remote()).get("units"):
        time.sleep(0.1)
    ray.kill(actor, no_restart=False)
    go.touch()


def test_a_killed_engine_loses_no_rows(tmp_path: Path, engine: Make, units: Make, sampled: JudgeProgram) -> None:
    rows, go = units(24), tmp_path / "go"
    late = {sampled.unit_of(row) for row in rows[24:]}
    with EnginePool(engine(replicas=2, max_num_seqs=4), "judge", "t").start() as pool:
        writer = start_writer([Table(str(tmp_path), JUDGMENTS)])
        killer = threading.Thread(target=killed_at_work, args=(pool.actors[0], go), daemon=True)
        killer.start()
        data = ray.data.from_arrow(pa.Table.from_pylist(rows))
        run_program(data, pool, Held(sampled, late, go), writer, stage="judgments", label="judging", total=len(rows))
        killer.join()
    assert closed_units(str(tmp_path), ("pair_id", "order")) == {f"{r['pair_id']}:{r['order']}" for r in rows}
    table = pa.concat_tables([pq.read_table(file) for file in sorted(tmp_path.glob("shard-*.parquet"))])
    assert table.num_rows == 2 * len(rows)
    assert min(table.column("completion_tokens").to_pylist()) >= 1


def test_tensor_parallel(engine: Make, units: Make, greedy: JudgeProgram, model: str, by_transformers: Make) -> None:
    """Three processes hold a third of the weights each; the text is that of one."""
    with EnginePool(engine(tensor_parallel=3), "judge", "t").start() as pool:
        assert texts(pool, greedy, units(2)) == by_transformers(model, greedy, units(2))


def test_a_bad_engine_argument_is_told_in_one_line(engine: Make) -> None:
    with pytest.raises(RunError, match=r"did not start: .*not_an_argument") as caught:
        EnginePool(engine(vllm={"not_an_argument": 1}), "judge", "t").start()
    assert "\n" not in str(caught.value)
