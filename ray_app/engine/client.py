"""From a Ray dataset to an engine pool: a light `map_batches` stage that keeps every engine's batch full.

Finished units go to the shard writer at once; only small counts come back to the driver.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import pyarrow as pa
import ray
import ray.data

from ray_app.engine.actor import ENGINE_ERROR
from ray_app.engine.base import Program, UnitResult
from ray_app.engine.pool import EnginePool
from ray_app.errors import RunError
from ray_app.progress import Progress

log = logging.getLogger(__name__)
ROWS_PER_CALL = 1
RETRIES = 4
GIVE_UP_AFTER = 50  # units in a row that failed in the engine


class PoolClient:
    """Ray Data UDF, one async actor: fans rows out over the replicas by least load."""

    def __init__(
        self, actors: list[Any], in_flight: int, program: Program, writer: Any, stage: str, timeout_s: float
    ) -> None:
        self.actors, self.program, self.writer = actors, program, writer
        self.stage, self.timeout_s = stage, timeout_s
        self.load = dict.fromkeys(range(len(actors)), 0)
        self.calls = asyncio.Semaphore(max(1, in_flight * len(actors) // ROWS_PER_CALL))
        self.failed: list[UnitResult] = []

    async def __call__(self, batch: pa.Table) -> AsyncIterator[pa.Table]:
        rows = batch.to_pylist()
        chunks = [rows[i : i + ROWS_PER_CALL] for i in range(0, len(rows), ROWS_PER_CALL)]
        await asyncio.gather(*(self._chunk(chunk) for chunk in chunks))
        yield pa.table({"units": [len(rows)]})

    async def _chunk(self, rows: list[dict[str, Any]]) -> None:
        async with self.calls:
            units = await self._call(rows)
        failed = [u for u in units if any(q["reason"] == ENGINE_ERROR for q in u.quarantine)]
        self.failed += failed
        if len(failed) == len(units):
            # Held back: if nothing succeeds, the engine is at fault, and no row is to be quarantined for it.
            if len(self.failed) >= GIVE_UP_AFTER:
                raise RunError(f"{len(self.failed)} requests in a row failed: {failed[-1].quarantine[0]['detail']}")
            return
        finished = [u for u in units if u not in failed] + self.failed
        self.failed = []
        await self.writer.add.remote(finished)

    async def flush(self) -> None:
        """Units held back at the end, when their requests did fail for good."""
        if self.failed:
            await self.writer.add.remote(self.failed)
            self.failed = []

    async def _call(self, rows: list[dict[str, Any]]) -> list[UnitResult]:
        cause = ""
        for attempt in range(RETRIES):
            index = min(self.load, key=lambda i: self.load[i])
            self.load[index] += len(rows)
            try:
                call = self.actors[index].run.remote(self.program, rows, self.stage)
                units: list[UnitResult] = await asyncio.wait_for(call, self.timeout_s)
                return units
            except (ray.exceptions.RayActorError, TimeoutError) as fault:
                # A dead replica restarts by itself; a cut network is only seen by our own limit.
                cause = type(fault).__name__
                await asyncio.sleep(2.0 * (attempt + 1))
            finally:
                self.load[index] -= len(rows)
        raise RunError(f"no engine answered after {RETRIES} tries: {cause}")


def run_program(
    dataset: ray.data.Dataset,
    pool: EnginePool,
    program: Program,
    writer: Any,
    *,
    stage: str,
    label: str,
    total: int,
) -> dict[str, float]:
    """Stream `dataset` through `program`; returns the counters of this attempt once all rows are durable.

    Raises RunError with the cause in one line when an engine or the writer fails for good.
    """
    settings = pool.settings
    tasks = min(256, max(8, settings.in_flight * len(pool.actors) // 32))
    stream = dataset.map_batches(
        PoolClient,
        fn_constructor_args=(
            pool.actors,
            settings.in_flight,
            program,
            writer,
            stage,
            settings.request_timeout_s,
        ),
        batch_size=None,
        batch_format="pyarrow",
        zero_copy_batch=True,
        num_cpus=0.01,
        compute=ray.data.ActorPoolStrategy(size=1, max_concurrent_calls_per_actor=tasks),
    )
    with Progress(label, total, writer):
        try:
            for _ in stream.iter_internal_ref_bundles():
                pass
        except Exception as fault:
            raise RunError(f"{label}: {root_cause(fault)}") from fault
        return dict(ray.get(writer.finish.remote()))


def root_cause(fault: BaseException) -> str:
    """The last cause of a chain of Ray errors, in one line."""
    while True:
        inner = getattr(fault, "cause", None) or fault.__cause__
        if inner is None or inner is fault:
            break
        fault = inner
    lines = [line for line in str(fault).strip().splitlines() if line.strip()]
    return (lines[-1] if lines else type(fault).__name__).strip()
