"""Asks the engines of a pool: spreads rows over them, and gives every row an answer whatever becomes of an engine.

    an engine dies, or makes nothing    it is ended and built anew with the weights of now; its rows are asked alone
                                        (`suspects.py`): one that ends engines alone is quarantined, the others answered
    an engine answers with errors       the row is asked of another; the engine rests until it answers a row that was
                                        answered before
    no engine answers for long          RunError

Used by the client of a stage (`client.py`), by the HTTP service and by `Judge` in Python. Of one event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import ray

from ray_app.engine.actor import ENGINE_ERROR, PROMPT_TOO_LONG, REFUSED, TIMEOUT, ask, faulty
from ray_app.engine.base import Asked, UnitResult, Work
from ray_app.engine.ending import end_process
from ray_app.engine.replicas import Replicas
from ray_app.engine.settings import EngineSettings
from ray_app.engine.suspects import Group, Suspects
from ray_app.errors import RunError, first_line

log = logging.getLogger(__name__)
KILLED = "killed_engine"
TRIES, MOST_TRIES = 2, 6  # of a row that fails in engines: those that count against it, and all
PING_EVERY_S, PING_LIMIT_S, LOOK_EVERY_S = 15.0, 60.0, 0.2
FAILED_TRIALS = 3  # of an engine that errs: then its process is built anew
# Its node has gone with it, or it was killed for good: it does not come back.
GONE = (ray.exceptions.ActorDiedError, ray.exceptions.ActorUnschedulableError)
DIED, STALLED = "died", "made nothing"


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


class _Lost(Exception):
    """An engine was lost with rows in it. `suspects`: one of them may have done it."""

    def __init__(self, cause: str, suspects: bool = True) -> None:
        super().__init__(cause)
        self.suspects = suspects


@dataclass(eq=False)
class _Waiting:
    """A suspect's row, and who waits for its answer: the index of the engine, and the unit."""

    lanes: Lanes
    asked: Asked
    answer: asyncio.Future[tuple[int | None, UnitResult]]


class Asker:
    """The engines `actors` of one pool, which serve `model`."""

    def __init__(self, actors: Sequence[Any], model: str, limits: Limits) -> None:
        self.actors, self.model, self.limits = list(actors), model, limits
        self.replicas = Replicas(len(self.actors), limits.patient)
        self.suspects: Suspects[_Waiting] = Suspects(limits.largest)
        self.lost = [asyncio.Event() for _ in self.actors]  # one for each life of a replica
        self.why = ["" for _ in self.actors]  # it was lost
        self.places: list[dict[str, Any]] = [{} for _ in self.actors]  # process and node
        self.moved = [time.monotonic() for _ in self.actors]  # when it last made anything, or had nothing to do
        self.known: tuple[Lanes, Asked] | None = None  # a row that was answered
        self.heard, self.cause = time.monotonic(), ""
        self.tasks: set[asyncio.Task[None]] = set()
        self.begun: asyncio.Task[None] | None = None
        self.trying_suspects = False

    async def ask(self, lanes: Lanes, rows: Sequence[Asked]) -> list[UnitResult]:
        """What engines answer to `rows`, in their order. Raises RunError when no engine answers any more."""
        if self.begun is None:
            self.begun = asyncio.create_task(self._begin())
        await asyncio.shield(self.begun)
        found: dict[int, UnitResult] = {}
        failures: Counter[int] = Counter()
        tries: Counter[int] = Counter()
        left, avoid = list(range(len(rows))), set[int]()
        while left:
            answers = await self._answers(lanes, [rows[i] for i in left], avoid)
            again = []
            for i, (index, unit) in zip(left, answers, strict=True):
                if self._noted(index, lanes, rows[i], unit):
                    found[i] = unit
                    continue
                tries[i] += 1
                failures[i] += index is None or self.replicas.erred(index)
                if index is not None:
                    avoid.add(index)
                    self._try_if_resting(index)
                if failures[i] < TRIES and tries[i] < MOST_TRIES:
                    again.append(i)
                else:
                    found[i] = unit
            left = again
        return [found[i] for i in range(len(rows))]

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
            moves = not told["at_work"] or told["made"] != self.places[index].get("made")
            quiet = 0.0 if moves else time.monotonic() - self.moved[index]
            return {**told, "quiet_s": quiet} if told["built"] else None

        return list(await asyncio.gather(*(pulse(index) for index in range(len(self.actors)))))

    def close(self) -> None:
        """Stop watching the engines; they live on."""
        for task in [*self.tasks, *([self.begun] if self.begun else [])]:
            task.cancel()

    def _noted(self, index: int | None, lanes: Lanes, row: Asked, unit: UnitResult) -> bool:
        """Take note of what an engine said; whether it is an answer, and no error of the engine."""
        reason = reason_of(unit)
        if reason == ENGINE_ERROR:
            self.cause = unit.quarantine[0]["detail"]
            return False
        if index is not None and reason not in (PROMPT_TOO_LONG, REFUSED, TIMEOUT):
            self.replicas.answered(index)
            self.heard, self.known = time.monotonic(), (lanes, row)
        return True

    async def _answers(self, lanes: Lanes, rows: list[Asked], avoid: set[int]) -> list[tuple[int | None, UnitResult]]:
        while True:
            index = await self._usable(avoid)
            try:
                return [(index, unit) for unit in await self._call(index, lanes, rows)]
            except _Lost as fault:
                if fault.suspects:
                    return await self._alone(lanes, rows)
                avoid.add(index)

    async def _usable(self, avoid: set[int]) -> int:
        while (index := self.replicas.pick(avoid)) is None:
            self._require_hope()
            await asyncio.sleep(LOOK_EVERY_S)
        return index

    def _require_hope(self) -> None:
        cause = f": {self.cause}" if self.cause else ""
        if self.replicas.all_dead:
            raise RunError(f"every engine died, and did not come back{cause}")
        silent = time.monotonic() - self.heard
        if silent > self.limits.silence_s and not self.replicas.coming_back:
            raise RunError(f"no engine has answered anything for {silent:.0f} s{cause}")

    async def _call(self, index: int, lanes: Lanes, rows: list[Asked]) -> list[UnitResult]:
        """Raises _Lost when the engine was lost on the way."""
        life = self.lost[index]
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
            except ray.exceptions.RayActorError as fault:
                self._down(index, life, DIED, _last_line(fault))
            except ray.exceptions.RayTaskError as fault:  # it could not start, or take the weights
                self._down(index, life, "did not start", _last_line(fault), end=True)
                raise _Lost(self.why[index], suspects=False) from None
            finally:
                lost.cancel()
                if not answer.done():
                    answer.cancel()
                    with contextlib.suppress(Exception):
                        ray.cancel(call)  # nobody waits for it: nothing is to be done twice
        raise _Lost(self.why[index])

    def _down(self, index: int, life: asyncio.Event, why: str, detail: str = "", end: bool = False) -> None:
        """A replica was lost in this life of it; `end`: its process is still there."""
        if life is not self.lost[index] or life.is_set():
            return  # known
        self.why[index], self.cause = why, f"engine {index} {why}{f' ({detail})' if detail else ''}"
        pause = self.replicas.lost(index, time.monotonic())
        life.set()
        log.warning("%s: it is built anew, and its rows are asked again", self.cause)
        self._go(self._rebuild(index, pause, end))

    def _gone(self, index: int, fault: Exception) -> None:
        self.replicas.gone(index)
        self.why[index], self.cause = DIED, f"engine {index} is gone: {_last_line(fault)}"
        if not self.lost[index].is_set():
            log.warning("%s", self.cause)
            self.lost[index].set()

    async def _rebuild(self, index: int, pause: float | None, end: bool) -> None:
        while pause is not None:
            if pause:
                log.warning("engine %d is built anew in %.0f s", index, pause)
            if end:
                await end_process(self.actors[index], self.places[index])
            await asyncio.sleep(pause)
            fault = await self._revived(index)
            if fault is None:
                self.replicas.restored(index)
                self.lost[index] = asyncio.Event()
                self.heard = self.moved[index] = time.monotonic()
                log.warning("engine %d answers again", index)
                return
            self.cause, end = f"engine {index} did not start: {fault}", True
            log.warning("%s", self.cause)
            pause = self.replicas.lost(index, time.monotonic())
        log.error("engine %d is not built anew any more: %s", index, self.cause)
        with contextlib.suppress(Exception):
            ray.kill(self.actors[index])

    async def _revived(self, index: int) -> str | None:
        """Why an engine did not start; None where it did."""
        actor = self.actors[index]
        try:
            async with asyncio.timeout(self.limits.start_s):
                self.places[index] = await value(actor.pulse.remote())  # of its new process, which may have to be ended
                fault: str | None = await value(actor.revive.remote(self.model))
            return fault
        except TimeoutError:
            return f"it was not ready after {self.limits.start_s:.0f} s"
        except ray.exceptions.RayError as fault_of_ray:
            return _last_line(fault_of_ray)

    async def _alone(self, lanes: Lanes, rows: list[Asked]) -> list[tuple[int | None, UnitResult]]:
        """Ask rows of a lost engine again, alone."""
        loop = asyncio.get_running_loop()
        waiting = [_Waiting(lanes, row, loop.create_future()) for row in rows]
        self.suspects.add(waiting)
        if not self.trying_suspects:
            self.trying_suspects = True
            self._go(self._try_suspects())
        return list(await asyncio.gather(*(one.answer for one in waiting)))

    async def _try_suspects(self) -> None:
        group: Group[_Waiting] = []
        try:
            await asyncio.sleep(0)  # the other calls to the same engine fail now too
            while group := self.suspects.next():
                group = [suspect for suspect in group if not suspect.row.answer.done()]  # its asker has given up
                if group:
                    await self._try_group(group, await self._kept_for_them())
        except Exception as fault:
            for waiting in [*(suspect.row for suspect in group), *self.suspects.everyone()]:
                if not waiting.answer.done():
                    waiting.answer.set_exception(fault)
        finally:
            self.replicas.aside = None
            self.trying_suspects = False

    async def _kept_for_them(self) -> int:
        """An engine that is asked nothing else."""
        while True:
            index = self.replicas.set_aside()
            self._require_hope()
            if index is not None and self.replicas.usable(index) and not self.replicas.load[index]:
                return index
            await asyncio.sleep(LOOK_EVERY_S)

    async def _try_group(self, group: Group[_Waiting], index: int) -> None:
        rows = [suspect.row for suspect in group]
        lanes = list({id(row.lanes): row.lanes for row in rows}.values())
        parts = [[row for row in rows if row.lanes is lane] for lane in lanes]
        calls = [self._call(index, lane, [row.asked for row in part]) for lane, part in zip(lanes, parts, strict=True)]
        answered = await asyncio.gather(*calls, return_exceptions=True)
        for part, units in zip(parts, answered, strict=True):
            if isinstance(units, list):
                for row, unit in zip(part, units, strict=True):
                    _settle(row, index, unit)
        left = [suspect for suspect in group if not suspect.row.answer.done()]
        faults = [units for units in answered if isinstance(units, BaseException)]
        if not left or not faults:
            return
        if not isinstance(faults[0], _Lost):
            raise faults[0]
        if not faults[0].suspects:
            self.suspects.groups.appendleft(left)
            return
        for row in self.suspects.ended(left):
            _settle(row, None, self._convicted(row, str(faults[0])))

    def _convicted(self, row: _Waiting, why: str) -> UnitResult:
        lane, asked = row.asked
        work = row.lanes.works[lane]
        unit, reason = work.program.unit_of(asked), TIMEOUT if why == STALLED else KILLED
        log.error("%s: %s is quarantined (%s): asked alone, it ended engine after engine", work.stage, unit, reason)
        return faulty(unit, work.stage, reason, f"asked alone, the engine {why}, again and again: {self.cause}")

    def _try_if_resting(self, index: int) -> None:
        one = self.replicas.all[index]
        if one.resting and one.rests == 0:
            log.warning("engine %d fails: %s; its rows are asked elsewhere", index, self.cause)
            self._go(self._try_until_it_answers(index, self.lost[index], self.replicas.rest(index)))

    async def _try_until_it_answers(self, index: int, life: asyncio.Event, pause: float) -> None:
        """Ask an engine that errs a row that was answered before, now and then."""
        failed = 0
        while self.replicas.all[index].resting and self.known and not life.is_set():
            await asyncio.sleep(pause)
            lanes, row = self.known
            with contextlib.suppress(_Lost):
                (unit,) = await self._call(index, lanes, [row])
                if reason_of(unit) != ENGINE_ERROR:
                    self.replicas.answered(index)
                    log.warning("engine %d answers again", index)
                    return
            failed, pause = failed + 1, self.replicas.rest(index)
            if failed == FAILED_TRIALS and self.limits.local:
                self._down(index, life, "answers with errors alone", self.cause, end=True)

    async def _begin(self) -> None:
        """See how the engines are: one may have died since a stage before, and have no engine."""
        await asyncio.gather(*(self._look(index) for index in range(len(self.actors))))
        for index in range(len(self.actors)):
            self._go(self._watch(index))

    async def _watch(self, index: int) -> None:
        """A cut network shows only in answers that do not come, and an engine that stands still only in its tokens."""
        while not self.replicas.all[index].dead:
            await asyncio.sleep(min(PING_EVERY_S, self.limits.stall_s / 4))
            if not self.replicas.all[index].down:
                await self._look(index)

    async def _look(self, index: int) -> None:
        life = self.lost[index]
        try:
            told = await asyncio.wait_for(value(self.actors[index].pulse.remote()), PING_LIMIT_S)
        except GONE as fault:
            self._gone(index, fault)
        except (TimeoutError, ray.exceptions.RayError) as fault:
            self._down(index, life, STALLED, f"it is silent: {_last_line(fault)}", end=True)
        else:
            now, before = time.monotonic(), self.places[index]
            if not told["built"]:
                self._down(index, life, DIED)
                return
            self.places[index] = told
            if not told["at_work"] or told["made"] != before.get("made"):
                self.moved[index] = now
            elif now - self.moved[index] >= self.limits.stall_s:
                self._down(index, life, STALLED, f"for {now - self.moved[index]:.0f} s", end=True)

    def _go(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)


def _settle(row: _Waiting, index: int | None, unit: UnitResult) -> None:
    if not row.answer.done():
        row.answer.set_result((index, unit))


def reason_of(unit: UnitResult) -> str | None:
    """Why a unit was quarantined; None where it was not."""
    return unit.quarantine[0]["reason"] if unit.quarantine else None


async def value(reference: Any) -> Any:
    """What a Ray reference stands for."""
    return await reference


def _last_line(fault: BaseException) -> str:
    lines = str(fault).strip().splitlines()
    return lines[-1].strip()[:300] if lines else first_line(fault)
