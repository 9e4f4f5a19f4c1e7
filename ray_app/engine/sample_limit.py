"""Limits of the samples that programs draw: how long one may take (the row of one that takes longer is quarantined, and
no other), and how many an engine is given at once.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from ray_app.base.schema import Message
from ray_app.engine.base import Completion, Engine, Prepared, Sampling

MARK_S = 1.0


class SampleTimeout(Exception):
    """A sample was not finished in time, though the engine worked. A fault of the row: it is quarantined."""


@dataclass(eq=False)
class _Mark:
    """What the engine had made at a moment; None until then."""

    made: tuple[int, int] | None = None


class LimitedEngine:
    """What programs ask: `engine`, where a sample takes at most `seconds`, the wait for its turn included, and at most
    `at_once` samples are with the engine. The others wait here: a program may draw all N of a row at once, and the
    process would be busy with a queue that vLLM need not see. `seconds` None: the engine sees to both itself.

    While the whole engine makes nothing, no sample is to blame: then it waits on, and the client ends the engine.
    """

    def __init__(self, engine: Engine, seconds: float | None, at_once: int) -> None:
        self.engine, self.seconds, self.control = engine, seconds, engine.control
        self.seats = asyncio.Semaphore(at_once)
        self.finished = 0  # samples
        self.mark: _Mark | None = None  # that of the samples which come now

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

        def check(before: _Mark) -> None:
            if self.made != before.made:
                limit.reschedule(loop.time())
            else:
                timers.append(loop.call_later(seconds, check, before))

        timers.append(loop.call_later(seconds, check, self._marked(min(MARK_S, seconds / 10))))
        try:
            async with limit, self.seats:
                return await self.engine.generate(prepared, sampling, seed)
        except TimeoutError:
            if limit.expired():
                raise SampleTimeout(f"a sample was not finished after {seconds:g} s") from None
            raise
        finally:
            timers[-1].cancel()

    def _marked(self, soon_s: float) -> _Mark:
        """What will have been made soon, one mark for all samples that come until then: to count looks at every sample
        there is, and once for each of thousands it kept an engine's process from answering for a minute.
        """
        if self.mark is None:
            self.mark = _Mark()
            asyncio.get_running_loop().call_later(soon_s, self._set, self.mark)
        return self.mark

    def _set(self, mark: _Mark) -> None:
        self.mark, mark.made = None, self.made
