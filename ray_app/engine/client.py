"""The client of an engine pool: what Ray Data runs over the rows of a stage (`stream.py` sets it up).

It keeps every engine's batch full. Finished units go to the shard writer at once; only small counts come back to the
driver. Rows of several tables may come through one client, each with the number of its lane: what is asked of it, and
which table takes what is made of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import pickle
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import ray

from ray_app.engine.actor import ENGINE_ERROR, REFUSED
from ray_app.engine.base import Asked, UnitResult, Work
from ray_app.engine.outbox import Outbox
from ray_app.engine.replicas import Replicas
from ray_app.errors import RunError

log = logging.getLogger(__name__)
RETRIES = 4
GIVE_UP_AFTER = 50  # units in a row that failed in the engine
PING_EVERY_S, PING_LIMIT_S = 15.0, 60.0
# Its node has gone with it, or it was started too often: it does not come back.
GONE = (ray.exceptions.ActorDiedError, ray.exceptions.ActorUnschedulableError)
LANE, ROW = "lane", "row"  # columns of rows of several tables: the table's number, and the pickled row

Held = tuple[int, UnitResult]  # a unit and its lane


@dataclass(frozen=True)
class ClientSettings:
    """What a client is told besides its pool and its work."""

    in_flight: int  # units, over all replicas
    rows_per_call: int  # units that go to a replica together, and come back together
    timeout_s: float  # of one unit
    emit: pa.Schema | None = None  # hand the rows on, once they are in closed shards, not counts (one lane alone)
    packed: bool = False  # rows come as LANE and ROW


class PoolClient:
    """Ray Data UDF, one async actor for all replicas. A batch is done when all of its units are with the writer."""

    def __init__(self, actors: list[Any], lanes: Sequence[Work], writer: Any, settings: ClientSettings) -> None:
        self.actors, self.lanes, self.settings = actors, ray.put(tuple(lanes)), settings
        self.writer, self.outbox = writer, Outbox(writer)
        self.replicas = Replicas(len(actors))
        self.slots = asyncio.Semaphore(settings.in_flight)
        self.lost: list[asyncio.Event] = []
        self.watchers: list[asyncio.Task[None]] = []
        self.held: list[Held] = []  # failed in the engine, and nothing has succeeded since
        self.failed_in_a_row = 0
        self.ever_succeeded = False
        self.at_work = 0  # units that are not with the writer yet

    async def __call__(self, batch: pa.Table) -> AsyncIterator[pa.Table]:
        self._start_watching()
        rows: list[dict[str, Any]] = []
        try:
            async with asyncio.TaskGroup() as group:
                for index in range(0, batch.num_rows, self.settings.rows_per_call):
                    asked = self._asked(batch.slice(index, self.settings.rows_per_call))
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

    def _asked(self, batch: pa.Table) -> list[Asked]:
        if not self.settings.packed:
            return [(0, row) for row in batch.to_pylist()]
        return [(row[LANE], pickle.loads(row[ROW])) for row in batch.to_pylist()]

    async def _make_durable(self) -> None:
        """A kill may cost a row that is in no closed shard, so no later stage may know it yet."""
        writer = self.writer
        if self.ever_succeeded:
            await self._release()
        elif self.held:
            await writer.hold.remote(self.held)
        # With nothing else to do, nothing more would fill the open shard.
        await writer.settled.remote(close=self.at_work == 0)

    async def _units(self, rows: list[Asked], emitted: list[dict[str, Any]]) -> None:
        self.at_work += len(rows)
        try:
            await self._finish(rows, emitted)
        finally:
            self.at_work -= len(rows)

    async def _finish(self, rows: list[Asked], emitted: list[dict[str, Any]]) -> None:
        try:
            units = await self._ask(rows)
        finally:
            for _ in rows:
                self.slots.release()
        finished: list[Held] = []
        for (lane, _), unit in zip(rows, units, strict=True):
            if any(fault["reason"] in (ENGINE_ERROR, REFUSED) for fault in unit.quarantine):
                self._hold(lane, unit)
                continue
            self.failed_in_a_row, self.ever_succeeded = 0, True
            finished.append((lane, unit))
        if finished:
            await self._release(*finished)
        if self.settings.emit is not None:
            emitted.extend(row for _, unit in finished for row in unit.rows)

    def _hold(self, lane: int, unit: UnitResult) -> None:
        """While nothing succeeds, the engine may be at fault, and no row is to be quarantined for it."""
        self.held.append((lane, unit))
        self.failed_in_a_row += 1
        if self.failed_in_a_row >= GIVE_UP_AFTER:
            raise RunError(f"{self.failed_in_a_row} requests in a row failed: {cause_of(unit)}")

    async def _release(self, *units: Held) -> None:
        finished, self.held = [*self.held, *units], []
        await self.outbox.put(finished)

    async def _ask(self, rows: list[Asked]) -> list[UnitResult]:
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

    async def _ask_one(self, index: int, rows: list[Asked]) -> list[UnitResult] | None:
        """Results, or None when the replica died or fell silent on the way."""
        call = self.actors[index].run.remote(self.lanes, rows)
        answer, lost = asyncio.ensure_future(_value(call)), asyncio.ensure_future(self.lost[index].wait())
        try:
            await asyncio.wait({answer, lost}, timeout=self.settings.timeout_s, return_when=asyncio.FIRST_COMPLETED)
            if answer.done():
                units: list[UnitResult] = answer.result()
                return units
            log.warning("engine %d is silent: its rows are asked elsewhere", index)
        except GONE:
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
            except GONE:
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


def _named(rows: list[Asked]) -> str:
    return str({key: str(value)[:40] for key, value in rows[0][1].items()})[:300]


def cause_of(unit: UnitResult) -> str:
    """Why a unit was quarantined."""
    return unit.quarantine[0]["detail"]
