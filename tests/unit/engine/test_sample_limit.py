"""A sample's time limit: it counts while the engine works."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from ray_app.engine.base import Completion, Prepared, Sampling
from ray_app.engine.sample_limit import LimitedEngine, SampleTimeout


class Held:
    """An engine that answers a prompt when it is let."""

    control: frozenset[str] = frozenset()

    def __init__(self) -> None:
        self.tokens, self.go, self.cancelled = 0, asyncio.Event(), False

    def generated(self) -> int:
        return self.tokens

    async def generate(self, *_: Any) -> Completion:
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        return Completion("done", "stop", 1, 1)


def limited_to(engine: Any, seconds: float, at_once: int = 8) -> LimitedEngine:
    """`engine` need not be a whole one."""
    return LimitedEngine(engine, seconds, at_once)


def asked(engine: Held, seconds: float) -> Any:
    return limited_to(engine, seconds).generate(Prepared([]), Sampling(), None)


async def working(engine: Held) -> None:
    while True:
        engine.tokens += 1
        await asyncio.sleep(0.01)


def test_a_sample_that_is_too_slow_is_named_and_given_up() -> None:
    async def main() -> bool:
        engine = Held()
        others = asyncio.create_task(working(engine))
        with pytest.raises(SampleTimeout, match=r"not finished after 0\.05 s"):
            await asked(engine, 0.05)
        others.cancel()
        return engine.cancelled

    assert asyncio.run(asyncio.wait_for(main(), 60))


def test_while_the_whole_engine_stands_still_no_sample_is_to_blame() -> None:
    async def main() -> str:
        engine = Held()
        waiting = asyncio.create_task(asked(engine, 0.02))
        for _ in range(20):  # many limits long
            await asyncio.sleep(0.01)
            assert not waiting.done()
        engine.go.set()
        return str((await waiting).text)

    assert asyncio.run(asyncio.wait_for(main(), 60)) == "done"


def test_the_limit_is_of_each_sample() -> None:
    async def main() -> int:
        engine = Held()
        engine.go.set()
        limited = limited_to(engine, 30.0)
        for _ in range(5):
            await limited.generate(Prepared([]), Sampling(), None)
        return limited.finished

    assert asyncio.run(main()) == 5


class Counted(Held):
    """Tells how often its tokens were counted, and how many samples it had at once."""

    def __init__(self) -> None:
        super().__init__()
        self.counts = self.here = self.most = 0

    def generated(self) -> int:
        self.counts += 1
        return super().generated()

    async def generate(self, *_: Any) -> Completion:
        self.here += 1
        self.most = max(self.most, self.here)
        try:
            return await super().generate()
        finally:
            self.here -= 1


async def asked_many(engine: Counted, samples: int, at_once: int) -> list[Completion]:
    limited = limited_to(engine, 30.0, at_once)
    tasks = []
    for _ in range(samples):
        tasks.append(asyncio.create_task(limited.generate(Prepared([]), Sampling(), None)))
        await asyncio.sleep(0)  # they come one after the other, as rows do
    engine.go.set()
    return list(await asyncio.gather(*tasks))


def test_tokens_are_not_counted_for_every_sample() -> None:
    engine = Counted()
    assert len(asyncio.run(asked_many(engine, 500, at_once=500))) == 500
    assert engine.counts <= 5  # one for all samples of a second; on a slow machine a few more


def test_a_sample_that_waits_for_a_seat_is_limited_too_and_seats_come_back() -> None:
    async def main() -> str:
        engine = Held()
        limited = limited_to(engine, 0.05, 2)
        others = asyncio.create_task(working(engine))
        ask = (limited.generate(Prepared([]), Sampling(), None) for _ in range(6))  # four find no seat
        outcomes = await asyncio.gather(*ask, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [SampleTimeout] * 6
        others.cancel()
        engine.go.set()
        return str((await limited.generate(Prepared([]), Sampling(), None)).text)

    assert asyncio.run(asyncio.wait_for(main(), 60)) == "done"


def test_an_engine_is_given_so_many_samples_at_once_and_the_others_in_their_turn() -> None:
    engine = Counted()
    assert len(asyncio.run(asked_many(engine, 100, at_once=7))) == 100
    assert engine.most == 7
