"""The shard writer as a Ray actor: engine clients hand it finished units, it makes them durable.

It runs on the driver's node, so it dies with the driver and never alone; rows not in a closed shard are then asked
for again.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import Any

import pyarrow as pa
import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from ray_app.run.lease import Fence
from ray_app.run.shard_settings import MAX_ROWS, MAX_SECONDS
from ray_app.run.shards import ShardWriter, shard_files


class _WriterActor:
    """Not Ray's own class, so that tests run it in an event loop of theirs."""

    def __init__(
        self,
        directory: str,
        schema: pa.Schema,
        fence: Fence | None,
        max_rows: int = MAX_ROWS,
        max_seconds: float = MAX_SECONDS,
    ) -> None:
        check = fence.check if fence else lambda: None
        self.writer = ShardWriter(directory, schema, max_rows=max_rows, max_seconds=max_seconds, fence=check)
        self.rows = bool(shard_files(directory))  # there are some, also of earlier attempts
        self.counters: Counter[str] = Counter()
        self.seen: set[str] = set()
        self.held: dict[str, Any] = {}  # units that failed in the engine before it answered at all
        self.first_unit = self.last_unit = 0.0  # when they came: Unix time
        self.moved = asyncio.Event()  # another shard takes rows than `shard`, or none does
        self.shard: int | None = None
        self.timer: asyncio.Task[None] | None = None
        self.fault: Exception | None = None

    async def add(self, units: list[Any]) -> None:
        """Rows or quarantine rows of finished units (`UnitResult`); a unit that came before is left out, because Ray
        runs a client's work again when its process dies. After an error every later call raises it too.
        """
        self._raise_fault()
        self.timer = self.timer or asyncio.create_task(self._tick())
        try:
            for unit in units:
                if unit.unit not in self.seen:
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
        self.held.update({unit.unit: unit for unit in units if unit.unit not in self.seen})

    async def unanswered(self) -> list[Any]:
        """Units that were held, and did not come since."""
        return list(self.held.values())

    async def answered(self) -> bool:
        """Whether any unit of the stage has rows, in this attempt or an earlier one."""
        return self.rows

    async def span(self) -> tuple[float, float]:
        """When the first and the last unit of this attempt came (Unix time; 0 if none did)."""
        return self.first_unit, self.last_unit

    async def progress(self) -> dict[str, float]:
        """Units and tokens so far."""
        return {"units": len(self.seen), "completion_tokens": self.counters["completion_tokens"]}

    async def finish(self) -> dict[str, float]:
        """Close the open shards; the counters of this attempt."""
        if self.timer:
            self.timer.cancel()
        self._raise_fault()
        self.writer.close()
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


def start_writer(
    directory: str,
    schema: pa.Schema,
    fence: Fence | None = None,
    max_rows: int = MAX_ROWS,
    max_seconds: float = MAX_SECONDS,
) -> Any:
    """A writer actor on this node; the handle has `add`, `settled`, `progress`, `finish` and more."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    actor = ray.remote(num_cpus=0, scheduling_strategy=here)(_WriterActor)
    return actor.remote(directory, schema, fence, max_rows, max_seconds)
