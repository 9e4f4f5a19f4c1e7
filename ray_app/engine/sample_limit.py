"""A time limit on each sample that a program draws: the row of one that takes longer is quarantined, and no other."""

from __future__ import annotations

import asyncio

from ray_app.base.schema import Message
from ray_app.engine.base import Completion, Engine, Prepared, Sampling


class SampleTimeout(Exception):
    """A sample was not finished in time, though the engine worked. A fault of the row: it is quarantined."""


class LimitedEngine:
    """What programs ask: `engine`, where a sample takes at most `seconds`, the wait for its turn included; None: the
    engine sees to that itself.

    While the whole engine makes nothing, no sample is to blame: then it waits on, and the client ends the engine.
    """

    def __init__(self, engine: Engine, seconds: float | None) -> None:
        self.engine, self.seconds, self.control = engine, seconds, engine.control
        self.finished = 0  # samples

    @property
    def made(self) -> tuple[int, int]:
        """Tokens and samples so far: what changes while the engine works."""
        return self.engine.generated(), self.finished

    def prepare(self, messages: list[Message]) -> Prepared:
        return self.engine.prepare(messages)

    async def generate(self, prepared: Prepared, sampling: Sampling, seed: int | None) -> Completion:
        """One sample. Raises SampleTimeout besides what the engine raises."""
        if self.seconds is None:
            completion = await self.engine.generate(prepared, sampling, seed)
        else:
            completion = await self._limited(prepared, sampling, seed, self.seconds)
        self.finished += 1
        return completion

    async def _limited(self, prepared: Prepared, sampling: Sampling, seed: int | None, seconds: float) -> Completion:
        loop = asyncio.get_running_loop()
        limit = asyncio.timeout(None)

        timers: list[asyncio.TimerHandle] = []  # the last of them is the one that runs

        def check(before: tuple[int, int]) -> None:
            if self.made != before:
                limit.reschedule(loop.time())
            else:
                timers.append(loop.call_later(seconds, check, before))

        timers.append(loop.call_later(seconds, check, self.made))
        try:
            async with limit:
                return await self.engine.generate(prepared, sampling, seed)
        except TimeoutError:
            if limit.expired():
                raise SampleTimeout(f"a sample was not finished after {seconds:g} s") from None
            raise
        finally:
            timers[-1].cancel()
