"""Engines get no further ahead of the shard writer than the rows in flight."""

from __future__ import annotations

import asyncio
import logging
import pickle
from typing import Any

import pyarrow as pa
import pytest

from ray_app.engine import client as module
from ray_app.engine.base import UnitResult
from ray_app.engine.client import ClientSettings, PoolClient, Relay
from ray_app.engine.supervisor import Limits

LIMITS = Limits(stall_s=60, silence_s=60, start_s=60, largest=8, local=True)


class Stuck:
    """A writer whose disk hangs until `go`."""

    def __init__(self) -> None:
        self.go, self.add, self.units = asyncio.Event(), self, 0

    async def remote(self, units: list[Any]) -> None:
        await self.go.wait()
        self.units += len(units)


class Quick:
    """Stands for the engines: it answers at once."""

    def __init__(self, *_: Any) -> None:
        self.answered = 0

    async def ask(self, _: Any, rows: list[Any]) -> list[UnitResult]:
        self.answered += len(rows)
        return [UnitResult(str(row["id"]), rows=[row]) for _, row in rows]

    async def settled(self) -> None:
        """Nothing stands still."""


class Work:
    model = "m"


def test_what_is_answered_waits_for_the_writer_before_more_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.ray, "put", lambda value: value)
    monkeypatch.setattr(module, "Asker", Quick)

    async def main() -> tuple[int, int]:
        writer = Stuck()
        client = PoolClient([], [Work()], writer, ClientSettings(6, 2, LIMITS))  # type: ignore[list-item]
        batch = client(pa.table({"id": list(range(40))}))
        running = asyncio.ensure_future(anext(batch))
        for _ in range(200):  # whatever can happen before the writer answers has happened
            await asyncio.sleep(0)
        ahead = client.asker.answered  # type: ignore[attr-defined]
        writer.go.set()
        counts = await running
        assert counts.column("units").to_pylist() == [40]
        return ahead, writer.units

    assert asyncio.run(asyncio.wait_for(main(), 60)) == (6, 40)


class Slow(Quick):
    """Answers when the test says so; `order` is what it was asked, in turn."""

    def __init__(self, *_: Any) -> None:
        super().__init__()
        self.order: list[int] = []
        self.go = asyncio.Semaphore(0)

    async def ask(self, lanes: Any, rows: list[Any]) -> list[UnitResult]:
        self.order += [row["id"] for _, row in rows]
        await self.go.acquire()
        return await super().ask(lanes, rows)


def test_batches_take_their_slots_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the answers of all batches that wait would lie among each other, and a join would read each shard of them
    once for each batch.
    """
    monkeypatch.setattr(module.ray, "put", lambda value: value)
    monkeypatch.setattr(module, "Asker", Slow)

    async def main() -> list[int]:
        writer = Stuck()
        writer.go.set()
        client = PoolClient([], [Work()], writer, ClientSettings(4, 2, LIMITS))  # type: ignore[list-item]
        batches = [client(pa.table({"id": list(range(start, start + 10))})) for start in (0, 10, 20)]
        running = [asyncio.ensure_future(anext(batch)) for batch in batches]
        asker: Slow = client.asker  # type: ignore[assignment]
        while not all(one.done() for one in running):
            asker.go.release()
            for _ in range(20):  # whoever may take a slot now has taken it
                await asyncio.sleep(0)
        return asker.order

    assert asyncio.run(asyncio.wait_for(main(), 60)) == list(range(30))


class Dead(Stuck):
    """A writer that has died."""

    async def remote(self, units: list[Any]) -> None:
        raise RuntimeError("the writer died")


class Late(Quick):
    """Answers after a moment, in which others may wait for slots."""

    async def ask(self, lanes: Any, rows: list[Any]) -> list[UnitResult]:
        await asyncio.sleep(0)
        return await super().ask(lanes, rows)


@pytest.mark.parametrize("asker", [Quick, Late])
@pytest.mark.parametrize("sizes", [(10, 10, 10), (4, 10, 10), (2, 2, 2)])
def test_once_a_batch_has_failed_no_other_is_begun(
    monkeypatch: pytest.MonkeyPatch, asker: type[Quick], sizes: tuple[int, ...]
) -> None:
    """The stage is driven again, and would ask their rows a second time."""
    monkeypatch.setattr(module.ray, "put", lambda value: value)
    monkeypatch.setattr(module, "Asker", asker)

    async def main() -> tuple[list[str], int]:
        client = PoolClient([], [Work()], Dead(), ClientSettings(4, 2, LIMITS))  # type: ignore[list-item]
        batches = [client(pa.table({"id": list(range(size))})) for size in sizes]
        ended = await asyncio.gather(*(anext(batch) for batch in batches), return_exceptions=True)
        return [str(one) for one in ended], client.asker.answered  # type: ignore[attr-defined]

    ended, answered = asyncio.run(asyncio.wait_for(main(), 60))
    assert ended == ["the writer died"] * 3
    assert answered <= 4


def test_a_batch_that_cannot_be_read_ends_the_others_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its tasks end before they begin, so their slots are free for nobody."""
    monkeypatch.setattr(module.ray, "put", lambda value: value)
    monkeypatch.setattr(module, "Asker", Late)

    async def main() -> list[type]:
        writer = Stuck()
        writer.go.set()
        client = PoolClient([], [Work()], writer, ClientSettings(2, 2, LIMITS, packed=True))  # type: ignore[list-item]
        good = pickle.dumps({"id": 1})
        lanes = {"lane": [0] * 4}
        batches = [client(pa.table({**lanes, "row": rows})) for rows in ([good, good, good, b"?"], [good] * 4)]
        ended = await asyncio.gather(*(anext(batch) for batch in batches), return_exceptions=True)
        return [type(one) for one in ended]

    assert asyncio.run(asyncio.wait_for(main(), 20)) == [pickle.UnpicklingError] * 2


def test_a_warning_that_its_writer_does_not_hear_ends_nothing() -> None:
    """Others log in the same process, and the writer may be dead: a client that follows takes the first one's place."""

    class Deaf:
        pass

    class Hears:
        def __init__(self) -> None:
            self.tell, self.lines = self, list[str]()

        def remote(self, line: str) -> None:
            self.lines.append(line)

    log, hears = logging.getLogger("ray_app.engine.supervisor"), Hears()
    try:
        Relay.begin(Deaf())
        log.warning("engine 0 died")
        Relay.begin(hears)
        log.warning("engine %d died", 1)
        assert hears.lines == ["engine 1 died"]
    finally:
        for handler in [one for one in logging.getLogger("ray_app").handlers if isinstance(one, Relay)]:
            logging.getLogger("ray_app").removeHandler(handler)
