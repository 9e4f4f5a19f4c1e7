"""The shard writer as a Ray actor: engine clients hand it finished units, it makes them durable.

It runs on the driver's node, so it dies with the driver and never alone; rows not in a closed shard are then asked
for again.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pyarrow as pa
import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from ray_app.run.lease import Fence
from ray_app.run.shards import MAX_ROWS, MAX_SECONDS, ShardWriter


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
        self.counters: Counter[str] = Counter()
        self.seen: set[str] = set()
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

    def _add(self, unit: Any) -> None:
        if unit.rows and unit.quarantine:
            raise ValueError(f"unit {unit.unit!r} has rows and is quarantined: a resumed run would lose one of them")
        self.seen.add(unit.unit)
        self.writer.add(unit.rows)
        self.writer.quarantine(unit.quarantine)
        self.counters.update(unit.counters)

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


def start_writer(
    directory: str,
    schema: pa.Schema,
    fence: Fence | None = None,
    max_rows: int = MAX_ROWS,
    max_seconds: float = MAX_SECONDS,
) -> Any:
    """A writer actor on this node; the handle has `add`, `progress` and `finish`."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    actor = ray.remote(num_cpus=0, scheduling_strategy=here)(_WriterActor)
    return actor.remote(directory, schema, fence, max_rows, max_seconds)
