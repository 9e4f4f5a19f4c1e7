"""From a Ray dataset to an engine pool: a light `map_batches` stage that keeps every engine's batch full.

    run_program(dataset, pool, program, writer, …)      a whole stage: rows in, durable shards out
    program_stage(dataset, pool, program, writer, …)    the same as a lazy dataset, whose rows a next stage can take

Finished units go to the shard writer at once; only small counts come back to the driver.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import pickle
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import ray
import ray.data

from ray_app.engine.actor import ENGINE_ERROR, REFUSED
from ray_app.engine.base import Program, UnitResult, Work
from ray_app.engine.outbox import Outbox
from ray_app.engine.pool import EnginePool
from ray_app.engine.replicas import Replicas
from ray_app.errors import RunError
from ray_app.system.progress import Part, Progress

log = logging.getLogger(__name__)
RETRIES = 4
GIVE_UP_AFTER = 50  # units in a row that failed in the engine
PING_EVERY_S, PING_LIMIT_S = 15.0, 60.0
STREAM_ROWS, STREAM_BLOCKS = 64, 16  # where a next stage takes the rows: at most so many a block, about so many blocks


@dataclass(frozen=True)
class ClientSettings:
    """What a client is told besides its pool and its work."""

    in_flight: int  # units, over all replicas
    rows_per_call: int  # units that go to a replica together, and come back together
    timeout_s: float  # of one unit
    emit: pa.Schema | None = None  # hand the rows on, once they are in closed shards, not counts


class PoolClient:
    """Ray Data UDF, one async actor for all replicas. A batch is done when all of its units are with the writer."""

    def __init__(self, actors: list[Any], work: Work, writer: Any, settings: ClientSettings) -> None:
        self.actors, self.work, self.settings = actors, ray.put(work), settings
        self.outbox = Outbox(writer)
        self.replicas = Replicas(len(actors))
        self.slots = asyncio.Semaphore(settings.in_flight)
        self.lost: list[asyncio.Event] = []
        self.watchers: list[asyncio.Task[None]] = []
        self.held: list[UnitResult] = []  # failed in the engine, and nothing has succeeded since
        self.failed_in_a_row = 0
        self.ever_succeeded = False
        self.at_work = 0  # units that are not with the writer yet

    async def __call__(self, batch: pa.Table) -> AsyncIterator[pa.Table]:
        self._start_watching()
        rows: list[dict[str, Any]] = []
        try:
            async with asyncio.TaskGroup() as group:
                for index in range(0, batch.num_rows, self.settings.rows_per_call):
                    asked = batch.slice(index, self.settings.rows_per_call).to_pylist()
                    for _ in asked:
                        await self.slots.acquire()
                    group.create_task(self._units(asked, rows))
        except ExceptionGroup as faults:
            raise faults.exceptions[0] from None
        if self.settings.emit is not None:
            await self._make_durable()
            yield pa.Table.from_pylist(rows, schema=self.settings.emit)
        else:
            held, self.held = self.held, []
            yield pa.table({"units": [batch.num_rows], "held": [pickle.dumps(held)]})

    async def _make_durable(self) -> None:
        """A kill may cost a row that is in no closed shard, so no later stage may know it yet."""
        writer = self.outbox.writer
        if self.ever_succeeded:
            await self._release()
        elif self.held:
            await writer.hold.remote(self.held)
        # With nothing else to do, nothing more would fill the open shard.
        await writer.settled.remote(close=self.at_work == 0)

    async def _units(self, rows: list[dict[str, Any]], emitted: list[dict[str, Any]]) -> None:
        self.at_work += len(rows)
        try:
            await self._finish(rows, emitted)
        finally:
            self.at_work -= len(rows)

    async def _finish(self, rows: list[dict[str, Any]], emitted: list[dict[str, Any]]) -> None:
        try:
            units = await self._ask(rows)
        finally:
            for _ in rows:
                self.slots.release()
        finished = []
        for unit in units:
            if any(fault["reason"] in (ENGINE_ERROR, REFUSED) for fault in unit.quarantine):
                self._hold(unit)
                continue
            self.failed_in_a_row, self.ever_succeeded = 0, True
            finished.append(unit)
        if finished:
            await self._release(*finished)
        if self.settings.emit is not None:
            emitted.extend(row for unit in finished for row in unit.rows)

    def _hold(self, unit: UnitResult) -> None:
        """While nothing succeeds, the engine may be at fault, and no row is to be quarantined for it."""
        self.held.append(unit)
        self.failed_in_a_row += 1
        if self.failed_in_a_row >= GIVE_UP_AFTER:
            raise RunError(f"{self.failed_in_a_row} requests in a row failed: {cause_of(unit)}")

    async def _release(self, *units: UnitResult) -> None:
        finished, self.held = [*self.held, *units], []
        await self.outbox.put(finished)

    async def _ask(self, rows: list[dict[str, Any]]) -> list[UnitResult]:
        tries, waited = 0, 0.0
        while True:
            index = self.replicas.pick()
            if self.replicas.all_dead:
                raise RunError("every engine died, and did not come back")
            if index is None:
                if waited >= self.settings.timeout_s:
                    raise RunError(f"no engine answered for {waited:.0f} s")
                waited += 1
                await asyncio.sleep(1)
                continue
            with self.replicas.busy(index, len(rows)):
                units = await self._ask_one(index, rows)
            if units is not None:
                return units
            tries += 1
            if tries == RETRIES:
                raise RunError(f"{RETRIES} engines in a row died or fell silent over the same row: {_named(rows)}")

    async def _ask_one(self, index: int, rows: list[dict[str, Any]]) -> list[UnitResult] | None:
        """Results, or None when the replica died or fell silent on the way."""
        call = self.actors[index].run.remote(self.work, rows)
        answer, lost = asyncio.ensure_future(_value(call)), asyncio.ensure_future(self.lost[index].wait())
        try:
            await asyncio.wait({answer, lost}, timeout=self.settings.timeout_s, return_when=asyncio.FIRST_COMPLETED)
            if answer.done():
                units: list[UnitResult] = answer.result()
                return units
            log.warning("engine %d is silent: its rows are asked elsewhere", index)
        except ray.exceptions.ActorDiedError:
            self.replicas.dead.add(index)
        except ray.exceptions.RayActorError:
            await asyncio.sleep(2)  # it restarts
        finally:
            if not answer.done():
                answer.cancel()
                with contextlib.suppress(Exception):
                    ray.cancel(call)  # a silent engine may come back: nothing is to be done twice
            lost.cancel()
        return None

    def _start_watching(self) -> None:
        if not self.watchers:
            self.lost = [asyncio.Event() for _ in self.actors]
            self.watchers = [asyncio.create_task(self._watch(i)) for i in range(len(self.actors))]

    async def _watch(self, index: int) -> None:
        """A cut network shows only in answers that do not come: Ray itself may wait for minutes, or for ever."""
        while index not in self.replicas.dead:
            await asyncio.sleep(PING_EVERY_S)
            try:
                await asyncio.wait_for(_value(self.actors[index].ready.remote()), PING_LIMIT_S)
            except ray.exceptions.ActorDiedError:
                self.replicas.dead.add(index)
            except (TimeoutError, ray.exceptions.RayActorError):
                self.replicas.silent.add(index)
            else:
                self.replicas.silent.discard(index)
                self.lost[index].clear()
                continue
            self.lost[index].set()


async def _value(reference: Any) -> Any:
    return await reference


def _named(rows: list[dict[str, Any]]) -> str:
    return str({key: str(value)[:40] for key, value in rows[0].items()})[:300]


def program_stage(
    dataset: ray.data.Dataset,
    pool: EnginePool,
    program: Program,
    writer: Any,
    *,
    stage: str,
    iteration: int | None = None,
    emit: pa.Schema | None = None,
    total: int = STREAM_ROWS * STREAM_BLOCKS,
) -> ray.data.Dataset:
    """`program` over `dataset`, lazily. Units go to `writer`; what comes out is small counts, or with `emit` the rows.

    With `emit` a next stage takes the rows, once they are in closed shards, while this one still runs: both stand in
    one Ray Data graph. A block is handed on whole, so `total` rows are cut into several. Units that failed while the
    engine had answered none are then with the writer (`unanswered`).
    """
    if emit is not None:
        dataset = dataset.repartition(target_num_rows_per_block=max(1, min(STREAM_ROWS, total // STREAM_BLOCKS)))
    in_flight = pool.settings.in_flight * len(pool.actors)
    blocks = min(256, max(8, in_flight // 32))
    work = Work(program, stage, iteration, pool.model)
    settings = ClientSettings(in_flight, pool.settings.rows_per_call, pool.settings.request_timeout_s, emit)
    return dataset.map_batches(
        PoolClient,
        fn_constructor_args=(pool.actors, work, writer, settings),
        batch_size=None,
        batch_format="pyarrow",
        zero_copy_batch=True,
        num_cpus=0.01,
        compute=ray.data.ActorPoolStrategy(size=1, max_concurrent_calls_per_actor=blocks),
        # A client that died may have written part of its batch: the stage is to end, and to resume from its shards.
        max_restarts=0,
        max_task_retries=0,
    )


def run_program(
    dataset: ray.data.Dataset,
    pool: EnginePool,
    program: Program,
    writer: Any,
    *,
    stage: str,
    label: str,
    total: int,
    iteration: int | None = None,
) -> dict[str, float]:
    """Stream `dataset` through `program`; returns the counters of this attempt once all rows are durable.

    Raises RunError with the cause in one line when an engine or the writer fails for good.
    """
    stream = program_stage(dataset, pool, program, writer, stage=stage, iteration=iteration)
    with Progress(Part(label, total, writer, tuple(pool.actors), pool.run_id)):
        return settle(label, *drain(stream, label), writer)


def settle(label: str, units: int, held: list[UnitResult], writer: Any) -> dict[str, float]:
    """Close the shards of a stage whose stream has ended, and return its counters. Raises RunError when nothing of it
    succeeded; otherwise the units that were held failed on their own, and are quarantined.
    """
    unheard = any(unit.quarantine[0]["reason"] == ENGINE_ERROR for unit in held)
    # A refusal may be a row's own fault, but not where no row of the stage was ever answered.
    if held and len(held) == units and (unheard or not ray.get(writer.answered.remote())):
        raise RunError(f"{label}: no request succeeded: {cause_of(held[-1])}")
    if held:
        ray.get(writer.add.remote(held))
    return dict(ray.get(writer.finish.remote()))


def drain(stream: ray.data.Dataset, label: str) -> tuple[int, list[UnitResult]]:
    """Run a `program_stage` to its end: (units, those that failed in the engine with no success after them).

    Raises RunError with the cause in one line.
    """
    units, held = 0, []
    try:
        for counts in stream.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
            units += sum(counts.column("units").to_pylist())
            held += [unit for part in counts.column("held").to_pylist() for unit in pickle.loads(part)]
    except Exception as fault:
        raise RunError(f"{label}: {root_cause(fault)}") from fault
    return units, held


def cause_of(unit: UnitResult) -> str:
    """Why a unit was quarantined."""
    return unit.quarantine[0]["detail"]


def root_cause(fault: BaseException) -> str:
    """What went wrong first, in one line. Ray hands a worker's exception on as text, wrapped in its own."""
    text = str(fault)
    ours = re.findall(r"^ray_app\.errors\.\w+: (.+)$", text, re.MULTILINE)
    if ours:
        return str(ours[0]).strip()
    raised = [line for line in re.findall(r"^[\w.]+(?:Error|Exception|Died|Exit).*: .+$", text, re.MULTILINE)]
    lines = raised or [line for line in text.splitlines() if line.strip()]
    return (lines[0] if lines else type(fault).__name__).strip()
