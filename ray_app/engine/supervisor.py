"""Watches the engines of a pool: one that died, or makes nothing of what it is asked, is ended and built anew.

Health is progress. An actor may answer while its engine hangs, and a cut network shows only in answers that do not
come; so an engine that has rows at work is asked for its tokens, now and then. Of one event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

import ray

from ray_app.engine.actor import ask, value
from ray_app.engine.base import Asked, UnitResult, Work
from ray_app.engine.ending import end_process
from ray_app.engine.replicas import Replicas
from ray_app.engine.settings import EngineSettings
from ray_app.errors import RunError, last_line
from ray_app.system.claims import what_is_free

log = logging.getLogger(__name__)
PING_EVERY_S, PING_LIMIT_S, SETTLE_S = 15.0, 60.0, 0.1
# Of an engine that has no process: its node may be gone, and no other have room.
TELL_AFTER_S, TELL_EVERY_S = 30.0, 60.0
# Its node has gone with it, or it was killed for good: it does not come back.
GONE = (ray.exceptions.ActorDiedError, ray.exceptions.ActorUnschedulableError)
DIED, STALLED = "died", "made nothing"
# Ray's memory monitor ends processes too, and says so by an error of its own.
DEATHS = (ray.exceptions.RayActorError, ray.exceptions.OutOfMemoryError)


@dataclass(frozen=True, eq=False)
class Lanes:
    """What rows are asked; `sent`: the same as it goes to the engines, a reference into Ray's store perhaps."""

    works: tuple[Work, ...]
    sent: Any


@dataclass(frozen=True)
class Limits:
    """How long what may take."""

    stall_s: float  # an engine with rows at work that makes no token and finishes no sample
    silence_s: float  # no engine answers anything
    start_s: float  # of an engine
    largest: int  # rows that one engine is asked at once
    local: bool  # whether the engine is a process of ours that a new start may heal
    patient: bool = False  # no engine is given up, however often it dies

    @classmethod
    def of(cls, settings: EngineSettings, patient: bool = False) -> Limits:
        times = settings.stall_timeout_s, settings.request_timeout_s, settings.start_timeout_s
        return cls(*times, settings.in_flight, settings.kind != "openai", patient)


class Lost(Exception):
    """An engine was lost with rows in it. `suspects`: one of them may have done it."""

    def __init__(self, cause: str, suspects: bool = True) -> None:
        super().__init__(cause)
        self.suspects = suspects


class Supervisor:
    """The engines `actors` of one pool, which serve `model`."""

    def __init__(self, actors: Sequence[Any], model: str, limits: Limits) -> None:
        self.actors, self.model, self.limits = list(actors), model, limits
        self.replicas = Replicas(len(self.actors), limits.patient)
        self.lives = [asyncio.Event() for _ in self.actors]  # one for each life of an engine: set when it is lost
        self.why = ["" for _ in self.actors]  # it was lost
        self.places: list[dict[str, Any]] = [{} for _ in self.actors]  # process and node
        self.moved = [time.monotonic() for _ in self.actors]  # when it last made anything, or had nothing to do
        self.heard, self.cause = time.monotonic(), ""
        self.flaps = [0 for _ in self.actors]  # losses after which the same process answered: nothing had died
        self.ending = 0  # processes that are to be ended, and have not yet
        self.tasks: set[asyncio.Task[None]] = set()
        self.begun: asyncio.Task[None] | None = None

    async def begin(self) -> None:
        """Start watching; returns when it is known how the engines are: one may have died since a stage before."""
        if self.begun is None:
            self.begun = asyncio.create_task(self._begin())
        await asyncio.shield(self.begun)

    def close(self) -> None:
        """Stop watching the engines; they live on."""
        for task in [*self.tasks, *([self.begun] if self.begun else [])]:
            task.cancel()

    async def settled(self) -> None:
        """Until no process is left that is to be ended: whoever comes next would find an engine that stands still."""
        while self.ending:
            await asyncio.sleep(SETTLE_S)

    def go(self, work: Coroutine[Any, Any, None]) -> None:
        """Do `work` until `close`."""
        task = asyncio.get_running_loop().create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def pulses(self, limit_s: float) -> list[dict[str, Any] | None]:
        """What each engine tells of itself, and for how many seconds it has made nothing though asked (`quiet_s`); None
        of one that does not answer, or is being built anew.
        """

        async def pulse(index: int) -> dict[str, Any] | None:
            if self.replicas.all[index].down:
                return None
            try:
                told = await asyncio.wait_for(value(self.actors[index].pulse.remote()), limit_s)
            except (TimeoutError, ray.exceptions.RayError):
                return None
            quiet = 0.0 if self._moves(index, told) else time.monotonic() - self.moved[index]
            return {**told, "quiet_s": quiet} if told["built"] else None

        return list(await asyncio.gather(*(pulse(index) for index in range(len(self.actors)))))

    def require_hope(self) -> None:
        """Raises RunError where no engine answers any more, or none has for long."""
        cause = f": {self.cause}" if self.cause else ""
        if self.replicas.all_dead:
            raise RunError(f"every engine died, and did not come back{cause}")
        silent = time.monotonic() - self.heard
        if silent > self.limits.silence_s and not self.replicas.coming_back:
            raise RunError(f"no engine has answered anything for {silent:.0f} s{cause}")

    async def call(self, index: int, lanes: Lanes, rows: list[Asked]) -> list[UnitResult]:
        """What one engine answers to `rows`. Raises Lost when it was lost on the way."""
        life = self.lives[index]
        with self.replicas.busy(index, len(rows)):
            call = ask(self.actors[index], lanes.sent, rows)
            answer, lost = asyncio.ensure_future(value(call)), asyncio.ensure_future(life.wait())
            try:
                await asyncio.wait({answer, lost}, return_when=asyncio.FIRST_COMPLETED)
                if answer.done():
                    units: list[UnitResult] = answer.result()
                    return units
            except GONE as fault:
                self._gone(index, fault)
            except DEATHS as fault:
                self.down(index, life, DIED, _last_line(fault))
            except ray.exceptions.ObjectLostError as fault:  # what it answered was on a node that has gone
                raise Lost(_last_line(fault), suspects=False) from None
            except ray.exceptions.RayTaskError as fault:  # it could not start, or take the weights
                self.down(index, life, "did not start", _last_line(fault), end=True)
                raise Lost(self.why[index], suspects=False) from None
            finally:
                lost.cancel()
                if not answer.done():
                    answer.cancel()
                    with contextlib.suppress(Exception):
                        ray.cancel(call)  # nobody waits for it: nothing is to be done twice
        raise Lost(self.why[index])

    def down(self, index: int, life: asyncio.Event, why: str, detail: str = "", end: bool = False) -> None:
        """A replica was lost in this life of it; `end`: its process is still there."""
        if life is not self.lives[index] or life.is_set():
            return  # known
        self.why[index], self.cause = why, f"engine {index} {why}{f' ({detail})' if detail else ''}"
        pause = self.replicas.lost(index, time.monotonic())
        life.set()
        log.warning("%s: it is built anew, and its rows are asked again", self.cause)
        self.ending += end
        self.go(self._rebuild(index, pause, end))

    def _gone(self, index: int, fault: Exception) -> None:
        self.replicas.gone(index)
        self.why[index], self.cause = DIED, f"engine {index} is gone: {_last_line(fault)}"
        if not self.lives[index].is_set():
            log.warning("%s", self.cause)
            self.lives[index].set()

    async def unharmed(self, index: int, flaps: int) -> bool:
        """Whether an engine that was lost turns out to live on as it was; `flaps`: its count before."""
        while self.replicas.all[index].down and not self.replicas.all[index].dead:
            await asyncio.sleep(SETTLE_S)
        return self.flaps[index] > flaps

    async def _rebuild(self, index: int, pause: float | None, end: bool) -> None:
        process = self._process(index)
        while pause is not None:
            if pause:
                log.warning("engine %d is built anew in %.0f s", index, pause)
            if end:
                await self._end(index)
            await asyncio.sleep(pause)
            fault = await self._revived(index)
            if fault is None:
                self.flaps[index] += self.places[index]["built"] and self._process(index) == process
                self.replicas.restored(index)
                self.lives[index] = asyncio.Event()
                self.heard = self.moved[index] = time.monotonic()
                log.warning("engine %d answers again", index)
                return
            self.cause, end = f"engine {index} did not start: {fault}", True
            self.ending += 1
            log.warning("%s", self.cause)
            pause = self.replicas.lost(index, time.monotonic())
        log.error("engine %d is not built anew any more: %s", index, self.cause)
        if end:
            await self._end(index)
        with contextlib.suppress(Exception):
            ray.kill(self.actors[index])

    async def _end(self, index: int) -> None:
        try:
            await end_process(self.actors[index], self.places[index])
        finally:
            self.ending -= 1

    def _process(self, index: int) -> tuple[Any, Any]:
        """The process of an engine, as it last told of itself."""
        return self.places[index].get("node"), self.places[index].get("pid")

    async def _placed(self, index: int) -> dict[str, Any]:
        """What the process of an engine tells of itself, once it has one; that it has none for long is told."""
        pulse, wait_s, waited = asyncio.ensure_future(value(self.actors[index].pulse.remote())), TELL_AFTER_S, 0.0
        try:
            while not (await asyncio.wait({pulse}, timeout=wait_s))[0]:
                waited += wait_s
                wait_s = TELL_EVERY_S
                log.warning(
                    "engine %d has no process for %.0f s: %s, and it waits for its own", index, waited, what_is_free()
                )
            told: dict[str, Any] = pulse.result()
            return told
        finally:
            pulse.cancel()

    async def _revived(self, index: int) -> str | None:
        """Why an engine did not start; None where it did."""
        actor = self.actors[index]
        try:
            async with asyncio.timeout(self.limits.start_s):
                self.places[index] = await self._placed(index)  # its new process may have to be ended
                fault: str | None = await value(actor.revive.remote(self.model))
            return fault
        except TimeoutError:
            return f"it was not ready after {self.limits.start_s:.0f} s"
        except ray.exceptions.RayError as fault_of_ray:
            return _last_line(fault_of_ray)

    async def _begin(self) -> None:
        await asyncio.gather(*(self._look(index) for index in range(len(self.actors))))
        for index in range(len(self.actors)):
            self.go(self._watch(index))

    async def _watch(self, index: int) -> None:
        while not self.replicas.all[index].dead:
            await asyncio.sleep(min(PING_EVERY_S, self.limits.stall_s / 4))
            if not self.replicas.all[index].down:
                await self._look(index)

    def _moves(self, index: int, told: dict[str, Any]) -> bool:
        """Whether an engine has made anything since it was looked at, or has nothing to do."""
        return not told["at_work"] or told["made"] != self.places[index].get("made")

    async def _look(self, index: int) -> None:
        life = self.lives[index]
        try:
            told = await asyncio.wait_for(value(self.actors[index].pulse.remote()), PING_LIMIT_S)
        except GONE as fault:
            self._gone(index, fault)
        except TimeoutError:
            self.down(index, life, STALLED, f"it is silent for {PING_LIMIT_S:.0f} s", end=True)
        except ray.exceptions.RayError as fault:
            self.down(index, life, DIED, _last_line(fault))
        else:
            now, moves = time.monotonic(), self._moves(index, told)
            if not told["built"]:
                self.down(index, life, DIED)
                return
            self.places[index] = told
            if moves:
                self.moved[index] = now
            elif self.limits.local and now - self.moved[index] >= self.limits.stall_s:
                # Of an endpoint no token is seen before an answer is whole: `request_timeout_s` alone limits it.
                self.down(index, life, STALLED, f"for {now - self.moved[index]:.0f} s", end=True)


def _last_line(fault: BaseException) -> str:
    return last_line(fault)[:300]
