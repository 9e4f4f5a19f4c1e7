"""Hands finished units to the shard writer, one call at a time: what arrives meanwhile goes with the next call."""

from __future__ import annotations

import asyncio
from typing import Any

from ray_app.engine.base import UnitResult

Units = list[tuple[int, UnitResult]]  # each with the number of its lane


class Outbox:
    """Groups units of many coroutines into few calls; `put` returns once the writer has them."""

    def __init__(self, writer: Any) -> None:
        self.writer = writer
        self.waiting: Units = []
        self.turn = asyncio.Lock()

    async def put(self, units: Units) -> None:
        """Raises what the writer raises."""
        self.waiting += units
        async with self.turn:
            batch, self.waiting = self.waiting, []
            if batch:  # else they went with a call before
                await self.writer.add.remote(batch)
