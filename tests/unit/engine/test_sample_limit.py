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


def asked(engine: Held, seconds: float) -> Any:
    return LimitedEngine(engine, seconds).generate(Prepared([]), Sampling(), None)  # type: ignore[arg-type]


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
        limited = LimitedEngine(engine, 30.0)  # type: ignore[arg-type]
        for _ in range(5):
            await limited.generate(Prepared([]), Sampling(), None)
        return limited.finished

    assert asyncio.run(main()) == 5
