"""Real vLLM is killed, stopped and poisoned at work: it costs nothing, or the row that does it. On the GPU where there
is one, where nothing of it may be left in its memory afterwards; else on the processor.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pytest
import ray
import ray.data
import torch
from closed import closed_units
from faulting import POISON, computing, poisoned_environment

from ray_app.base.schema import JUDGMENTS
from ray_app.engine.base import Engine, UnitResult
from ray_app.engine.pool import EnginePool
from ray_app.engine.stream import run_program
from ray_app.generation.programs.judge import JudgeProgram
from ray_app.run.shards import row_counts
from ray_app.run.writer_actor import Table, start_writer

pytestmark = [pytest.mark.usefixtures("cluster"), pytest.mark.matrix, pytest.mark.timeout(900)]
Make = Callable[..., Any]
ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # engines do not know this file
GPU = torch.cuda.is_available()
# Without graphs: an engine starts four times here, and what is shown does not depend on them.
ON_GPU = {"device": "cuda", "dtype": "auto", "replicas_per_gpu": 2, "vllm": {"enforce_eager": True}} if GPU else {}
ROWS = 24


class Held:
    """Asks like `program`, but half of the units only once the file `go` is there: both engines are at work then."""

    def __init__(self, program: JudgeProgram, go: Path) -> None:
        self.program, self.go = program, go

    def unit_of(self, row: dict[str, Any]) -> str:
        return self.program.unit_of(row)

    async def __call__(self, engine: Engine, row: dict[str, Any]) -> UnitResult:
        while row["order"] == "rejected_first" and not self.go.exists():
            await asyncio.sleep(0.05)
        return await self.program(engine, row)


def at_work(pool: EnginePool, go: Path, fault: Callable[[Any], None]) -> threading.Thread:
    """Do something to an engine once it has answered a row, then let the held ones go."""

    def wait() -> None:
        while not ray.get(pool.actors[0].stats.remote()).get("units"):
            time.sleep(0.1)
        fault(pool.actors[0])
        go.touch()

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    return thread


@pytest.fixture
def nothing_left() -> Iterator[None]:
    """Of the GPU's memory."""
    before = torch.cuda.mem_get_info()[0] if GPU else 0
    yield
    if GPU:
        deadline = time.monotonic() + 60
        while before - torch.cuda.mem_get_info()[0] > 16 * 2**20:
            assert time.monotonic() < deadline, "engines that were closed still hold memory"
            time.sleep(1)


def judged(folder: Path, pool: EnginePool, program: Any, units: list[dict[str, Any]]) -> dict[str, int]:
    """Judge the units; returns the reasons of those that were lost, counted. Every unit must be closed once."""
    writer = start_writer([Table(str(folder), JUDGMENTS)])
    data = ray.data.from_arrow([pa.Table.from_pylist(units[i::4]) for i in range(4)])
    run_program(data, pool, program, writer, stage="judgments", label="judging", total=len(units))
    assert closed_units(str(folder), ("pair_id", "order")) == {f"{u['pair_id']}:{u['order']}" for u in units}
    rows, lost = row_counts(str(folder))
    assert rows + sum(lost.values()) == len(units)
    return lost


def pool_of(engine: Make, **more: Any) -> EnginePool:
    return EnginePool(engine(**{"replicas": 2, "max_num_seqs": 8, **ON_GPU, **more}), "judge", "t")


@pytest.mark.usefixtures("nothing_left")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_an_engine_that_is_killed_or_stopped_at_work_loses_no_row(
    tmp_path: Path, engine: Make, units: Make, greedy: JudgeProgram, how: signal.Signals
) -> None:
    go = tmp_path / "go"
    touched: list[int] = []

    def fault(actor: Any) -> None:
        touched.append(computing(actor))
        os.kill(touched[0], how)

    with pool_of(engine, stall_timeout_s=20).start() as pool:
        thread = at_work(pool, go, fault)
        assert judged(tmp_path / "table", pool, Held(greedy, go), units(ROWS)[:ROWS]) == {}
        thread.join()
        assert not psutil.pid_exists(touched[0]) or psutil.Process(touched[0]).status() == psutil.STATUS_ZOMBIE
        assert {computing(actor) for actor in pool.actors}.isdisjoint(touched)


@pytest.mark.usefixtures("nothing_left")
def test_a_row_that_ends_every_engine_is_quarantined_and_costs_no_other(
    tmp_path: Path, engine: Make, units: Make, greedy: JudgeProgram, model: str
) -> None:
    rows = units(ROWS)[:ROWS]
    rows[5] = {**rows[5], "instruction": f"{rows[5]['instruction']}{POISON}"}
    with pool_of(engine, env=poisoned_environment(model)).start() as pool:
        lost = judged(tmp_path / "table", pool, greedy, rows)
    assert lost == {"killed_engine": 1}
