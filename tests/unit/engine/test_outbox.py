"""Units go out in few calls, and `put` returns only when the writer has them."""

from __future__ import annotations

import asyncio

import pytest

from ray_app.engine.base import UnitResult
from ray_app.engine.outbox import Outbox


class Writer:
    """Stands for the writer actor's handle."""

    def __init__(self, fault: Exception | None = None) -> None:
        self.calls: list[list[str]] = []
        self.fault = fault
        self.add = self

    async def remote(self, units: list[tuple[int, UnitResult]]) -> None:
        await asyncio.sleep(0.01)
        if self.fault:
            raise self.fault
        self.calls.append([unit.unit for _, unit in units])


def test_units_that_come_during_a_call_go_together() -> None:
    writer = Writer()

    async def main() -> None:
        box = Outbox(writer)
        written_at_return = []

        async def put(i: int) -> None:
            await box.put([(0, UnitResult(str(i)))])
            written_at_return.append(str(i) in [u for call in writer.calls for u in call])

        await asyncio.gather(*(put(i) for i in range(100)))
        assert written_at_return == [True] * 100

    asyncio.run(main())
    assert sorted(int(u) for call in writer.calls for u in call) == list(range(100))
    assert len(writer.calls) == 2  # the first, and all that came meanwhile


def test_a_fault_of_the_writer_is_raised() -> None:
    with pytest.raises(RuntimeError, match="disk full"):
        asyncio.run(Outbox(Writer(RuntimeError("disk full"))).put([(0, UnitResult("a"))]))
