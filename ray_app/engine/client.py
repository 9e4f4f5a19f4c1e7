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

from ray_app.engine.actor import ENGINE_ERROR, REFUSED, TIMEOUT
from ray_app.engine.asking import KILLED, Asker, reason_of
from ray_app.engine.base import Asked, UnitResult, Work
from ray_app.engine.outbox import Outbox
from ray_app.engine.supervisor import Lanes, Limits
from ray_app.errors import RunError

GIVE_UP_AFTER = 50  # units in a row that failed in the engines
DOUBTFUL = (ENGINE_ERROR, REFUSED, TIMEOUT, KILLED)  # faults that may be the engines' own
LANE, ROW = "lane", "row"  # columns of rows of several tables: the table's number, and the pickled row

Held = tuple[int, UnitResult]  # a unit and its lane


@dataclass(frozen=True)
class ClientSettings:
    """What a client is told besides its pool and its work."""

    in_flight: int  # units, over all replicas
    rows_per_call: int  # units that go to a replica together, and come back together
    limits: Limits
    emit: pa.Schema | None = None  # hand the rows on, once they are in closed shards, not counts (one lane alone)
    packed: bool = False  # rows come as LANE and ROW


class Relay(logging.Handler):
    """What a client warns of, engines above all, is to be read where the driver's log is: its own goes to a file of
    Ray's on the node.
    """

    def __init__(self, writer: Any) -> None:
        super().__init__(logging.WARNING)
        self.writer = writer

    def emit(self, record: logging.LogRecord) -> None:
        with contextlib.suppress(Exception):  # a word that is not heard must end nothing
            self.writer.tell.remote(record.getMessage())

    @classmethod
    def begin(cls, writer: Any) -> None:
        """From now on, in this process; in place of the client before."""
        logger = logging.getLogger("ray_app")
        for handler in [one for one in logger.handlers if isinstance(one, cls)]:
            logger.removeHandler(handler)
        logger.addHandler(cls(writer))


class PoolClient:
    """Ray Data UDF, one async actor for all replicas. A batch is done when all of its units are with the writer."""

    def __init__(self, actors: list[Any], lanes: Sequence[Work], writer: Any, settings: ClientSettings) -> None:
        self.settings, self.lanes = settings, Lanes(tuple(lanes), ray.put(tuple(lanes)))
        self.asker = Asker(actors, lanes[0].model, settings.limits)
        self.writer, self.outbox = writer, Outbox(writer)
        Relay.begin(writer)
        self.slots = asyncio.Semaphore(settings.in_flight)
        self.turn = asyncio.Lock()  # of the batch that takes slots
        self.held: list[Held] = []  # failed in the engine, and nothing has succeeded since
        self.failed_in_a_row = 0
        self.ever_succeeded = False
        self.at_work = 0  # units that are not with the writer yet
        self.fault: Exception | None = None  # what ended a batch, and ends the stage

    async def __call__(self, batch: pa.Table) -> AsyncIterator[pa.Table]:
        rows: list[dict[str, Any]] = []
        try:
            await self._all_units(batch, rows)
        except Exception as fault:
            first = fault.exceptions[0] if isinstance(fault, ExceptionGroup) else fault
            self.fault = self.fault or first
            self.slots.release()  # one batch may wait for slots of tasks that were never begun: it is to see the fault
            raise first from None
        if self.settings.emit is not None:
            yield pa.Table.from_pylist(rows, schema=self.settings.emit)
        else:
            held, self.held = self.held, []
            yield pa.table({"units": [batch.num_rows], "held": [pickle.dumps(held)]})

    async def _all_units(self, batch: pa.Table, rows: list[dict[str, Any]]) -> None:
        """Raises what ended this batch, or another one."""
        # One batch after the other takes its slots, though many wait: what is made of a shard then lies in few
        # shards of the next table, and whoever joins the two reads them seldom more than once.
        async with asyncio.TaskGroup() as group, self.turn:
            for index in range(0, batch.num_rows, self.settings.rows_per_call):
                asked = self._asked(batch.slice(index, self.settings.rows_per_call))
                await self._take_slots(len(asked))
                group.create_task(self._units(asked, rows))
        await self.asker.settled()  # the client ends with its last batch, and with it whoever would end the process
        if self.settings.emit is not None:
            await self._make_durable()

    async def _take_slots(self, count: int) -> None:
        """Raises what ended another batch: the stage ends with it, and what was begun now would be asked again. What
        this batch has begun is given up, too.
        """
        for _ in range(count):
            if self.fault is None:
                await self.slots.acquire()
        if self.fault is not None:
            raise self.fault.with_traceback(None)  # else it grows with every batch that raises it

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
        except Exception as fault:
            self.fault = self.fault or fault  # before its slots are free: who waits for them is to see it
            raise
        finally:
            self.at_work -= len(rows)
            for _ in rows:  # only now: what engines make is not to pile up before a writer that is slower than they
                self.slots.release()

    async def _finish(self, rows: list[Asked], emitted: list[dict[str, Any]]) -> None:
        units = await self.asker.ask(self.lanes, rows)
        finished: list[Held] = []
        for (lane, _), unit in zip(rows, units, strict=True):
            if reason_of(unit) in DOUBTFUL:
                self._hold(lane, unit)
                continue
            self.failed_in_a_row, self.ever_succeeded = 0, True
            finished.append((lane, unit))
        if finished:
            await self._release(*finished)
        if self.settings.emit is not None:
            emitted.extend(row for _, unit in finished for row in unit.rows)

    def _hold(self, lane: int, unit: UnitResult) -> None:
        """While nothing succeeds, the engines may be at fault, and no row is to be quarantined for it."""
        self.held.append((lane, unit))
        self.failed_in_a_row += 1
        if self.failed_in_a_row >= GIVE_UP_AFTER:
            raise RunError(f"{self.failed_in_a_row} requests in a row failed: {cause_of(unit)}")

    async def _release(self, *units: Held) -> None:
        finished, self.held = [*self.held, *units], []
        await self.outbox.put(finished)


def cause_of(unit: UnitResult) -> str:
    """Why a unit was quarantined."""
    return unit.quarantine[0]["detail"]
