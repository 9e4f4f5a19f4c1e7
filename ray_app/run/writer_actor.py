"""The shard writer as a Ray actor: engine clients hand it finished units, it makes them durable.

It runs on the driver's node, so no other node's end takes it along. Where it dies, rows not in a closed shard are asked
for again (`generation.runner.driven`). One actor writes the tables of all lanes of a stage, each into its own folder.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter, deque
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import pyarrow as pa
import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from ray_app.run.lease import Fence
from ray_app.run.shard_settings import MAX_ROWS, MAX_SECONDS
from ray_app.run.shards import ShardWriter, shard_files
from ray_app.run.units import SeenUnits

T = TypeVar("T")
MOST_LINES = 200  # that wait to be said


@dataclass(frozen=True)
class Table:
    """One lane's table: its folder and schema."""

    directory: str
    schema: pa.Schema


class TableWriter:
    """Writes the units of one table, in an event loop."""

    def __init__(
        self,
        directory: str,
        schema: pa.Schema,
        fence: Fence | None,
        max_rows: int = MAX_ROWS,
        max_seconds: float = MAX_SECONDS,
    ) -> None:
        check = fence.check if fence else lambda: None
        owner = fence.owner if fence else ""
        self.writer = ShardWriter(
            directory, schema, max_rows=max_rows, max_seconds=max_seconds, fence=check, owner=owner
        )
        self.rows = bool(shard_files(directory))  # there are some, also of earlier attempts
        self.counters: Counter[str] = Counter()
        self.seen = SeenUnits()
        self.held: dict[str, Any] = {}  # units that failed in the engine before it answered at all
        self.first_unit = self.last_unit = 0.0  # when they came: Unix time
        self.moved = asyncio.Event()  # another shard takes rows than `shard`, or none does
        self.shard: int | None = None
        self.timer: asyncio.Task[None] | None = None
        self.fault: Exception | None = None

    async def add(self, units: list[Any]) -> None:
        """Rows or quarantine rows of finished units (`UnitResult`); a unit that came before is left out. After an error
        every later call raises it too.
        """
        self._raise_fault()
        self.timer = self.timer or asyncio.create_task(self._tick())
        try:
            for unit in self._new(units):
                self._add(unit)
        except Exception as fault:
            self.fault = fault
            raise
        finally:
            self._tell()

    def _add(self, unit: Any) -> None:
        if unit.rows and unit.quarantine:
            raise ValueError(f"unit {unit.unit!r} has rows and is quarantined: a resumed run would lose one of them")
        self.seen.add(unit.unit)
        self.held.pop(unit.unit, None)
        self.last_unit = time.time()
        self.first_unit = self.first_unit or self.last_unit
        self.rows = self.rows or bool(unit.rows)
        self.writer.add(unit.rows)
        self.writer.quarantine(unit.quarantine)
        self.counters.update(unit.counters)

    async def settled(self, close: bool = False) -> None:
        """Returns once every row that came before this call is in a closed shard; with `close`, by closing it now."""
        self._raise_fault()
        if close:
            try:
                self.writer.close()
            except Exception as fault:
                self.fault = fault
            self._tell()
        shard = self.writer.open_shard
        while shard is not None and self.writer.open_shard == shard and self.fault is None:
            await self.moved.wait()
        self._raise_fault()

    async def hold(self, units: list[Any]) -> None:
        """Keep units that failed while the engine had not answered yet: whether it was their fault shows at the end."""
        self.held.update({unit.unit: unit for unit in self._new(units)})

    def _new(self, units: list[Any]) -> list[Any]:
        """Those that did not come before, each once."""
        by_name = {unit.unit: unit for unit in reversed(units)}  # of two of one name the first
        known = dict(zip(by_name, self.seen.known(list(by_name)), strict=True))
        return [unit for unit in units if by_name[unit.unit] is unit and not known[unit.unit]]

    async def progress(self) -> dict[str, float]:
        """Units and tokens so far."""
        return {"units": len(self.seen), "completion_tokens": self.counters["completion_tokens"]}

    async def finish(self) -> dict[str, float]:
        """Close the open shards; the counters of this attempt. After an error they are closed too, for what came before
        it is answered; then the error is raised.
        """
        if self.timer:
            self.timer.cancel()
        with contextlib.suppress(Exception) if self.fault else contextlib.nullcontext():
            self.writer.close()
        self._raise_fault()
        return dict(self.counters)

    def _tell(self) -> None:
        """Wake those who wait for a shard to close."""
        if self.writer.open_shard != self.shard or self.fault is not None:
            self.shard = self.writer.open_shard
            self.moved.set()
            self.moved = asyncio.Event()

    def _raise_fault(self) -> None:
        if self.fault:
            raise self.fault

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(1)
            try:
                self.writer.tick()
            except Exception as fault:  # shown by the next call: a timer has nobody to raise to
                self.fault = fault
                return
            finally:
                self._tell()


class _WriterActor:
    """The tables of all lanes. Units come with the number of their lane."""

    def __init__(self, tables: Sequence[Table], fence: Fence | None, max_rows: int, max_seconds: float) -> None:
        self.tables = [TableWriter(t.directory, t.schema, fence, max_rows, max_seconds) for t in tables]
        self.lines: deque[str] = deque(maxlen=MOST_LINES)

    async def add(self, units: list[tuple[int, Any]]) -> None:
        """Rows or quarantine rows of finished units. After an error every later call raises it too."""
        lanes = [[unit for number, unit in units if number == lane] for lane in range(len(self.tables))]
        await _each([table.add(own) for table, own in zip(self.tables, lanes, strict=True) if own])

    async def settled(self, close: bool = False) -> None:
        """Returns once every row that came before this call is in a closed shard; with `close`, by closing it now."""
        await asyncio.gather(*(table.settled(close) for table in self.tables))

    async def hold(self, units: list[tuple[int, Any]]) -> None:
        """Keep units that failed while the engine had not answered yet."""
        for lane, table in enumerate(self.tables):
            await table.hold([unit for number, unit in units if number == lane])

    async def unanswered(self) -> list[tuple[int, Any]]:
        """Units that were held, and did not come since."""
        return [(lane, unit) for lane, table in enumerate(self.tables) for unit in table.held.values()]

    async def answered(self) -> list[bool]:
        """Whether any unit of each table has rows, in this attempt or an earlier one."""
        return [table.rows for table in self.tables]

    async def spans(self) -> list[tuple[float, float]]:
        """When the first and the last unit of each table came in this attempt (Unix time; 0 if none did)."""
        return [(table.first_unit, table.last_unit) for table in self.tables]

    async def progress(self) -> dict[str, float]:
        """Units and tokens so far, of all tables."""
        told = [await table.progress() for table in self.tables]
        return {name: sum(one[name] for one in told) for name in ("units", "completion_tokens")}

    async def tell(self, line: str) -> None:
        """Something that the driver is to say: the driver has a handle of the writer, and none of the client."""
        self.lines.append(line)

    async def news(self) -> list[str]:
        """What was told since the last question."""
        lines = list(self.lines)
        self.lines.clear()
        return lines

    async def finish(self) -> list[dict[str, float]]:
        """Close the open shards; the counters of this attempt, a table each. A table's error keeps no other open."""
        return await _each([table.finish() for table in self.tables])


async def _each(acts: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """Do them all, one after the other; then the first error is raised, if there was one."""
    done, faults = [], list[Exception]()
    for act in acts:
        try:
            done.append(await act)
        except Exception as fault:
            faults.append(fault)
    if faults:
        raise faults[0]
    return done


def start_writer(
    tables: Sequence[Table],
    fence: Fence | None = None,
    max_rows: int = MAX_ROWS,
    max_seconds: float = MAX_SECONDS,
) -> Any:
    """A writer actor on this node; the handle has `add`, `settled`, `progress`, `finish` and more."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    actor = ray.remote(num_cpus=0, scheduling_strategy=here)(_WriterActor)
    return actor.remote(tables, fence, max_rows, max_seconds)
