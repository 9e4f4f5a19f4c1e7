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

from ray_app.engine.actor import ENGINE_ERROR, PROMPT_TOO_LONG, REFUSED, TIMEOUT, faulty
from ray_app.engine.base import Asked, UnitResult
from ray_app.engine.supervisor import STALLED, Lanes, Limits, Lost, Supervisor
from ray_app.engine.suspects import Group, Suspects

log = logging.getLogger(__name__)
KILLED = "killed_engine"
TRIES, MOST_TRIES = 2, 6  # of a row that fails in engines: those that count against it, and all
LOOK_EVERY_S = 0.2
FAILED_TRIALS = 3  # of an engine that errs: then its process is built anew


@dataclass(eq=False)
class _Waiting:
    """A suspect's row, and who waits for its answer: the index of the engine, and the unit."""

    lanes: Lanes
    asked: Asked
    answer: asyncio.Future[tuple[int | None, UnitResult]]


class Asker:
    """The engines `actors` of one pool, which serve `model`."""

    def __init__(self, actors: Sequence[Any], model: str, limits: Limits) -> None:
        self.engines = Supervisor(actors, model, limits)
        self.replicas = self.engines.replicas
        self.suspects: Suspects[_Waiting] = Suspects(limits.largest)
        self.trying_suspects = False
        self.known: tuple[Lanes, Asked] | None = None  # a row that was answered

    async def ask(self, lanes: Lanes, rows: Sequence[Asked]) -> list[UnitResult]:
        """What engines answer to `rows`, in their order. Raises RunError when no engine answers any more."""
        await self.engines.begin()
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

    async def settled(self) -> None:
        """Until no process is left of an engine that stands still."""
        await self.engines.settled()

    def close(self) -> None:
        """Stop watching the engines; they live on."""
        self.engines.close()

    def _noted(self, index: int | None, lanes: Lanes, row: Asked, unit: UnitResult) -> bool:
        """Take note of what an engine said; whether it is an answer, and no error of the engine."""
        reason = reason_of(unit)
        if reason == ENGINE_ERROR:
            self.engines.cause = unit.quarantine[0]["detail"]
            return False
        if index is not None and reason not in (PROMPT_TOO_LONG, REFUSED, TIMEOUT):
            self.replicas.answered(index)
            self.engines.heard, self.known = time.monotonic(), (lanes, row)
        return True

    async def _answers(self, lanes: Lanes, rows: list[Asked], avoid: set[int]) -> list[tuple[int | None, UnitResult]]:
        while True:
            index = await self._usable(avoid)
            try:
                return [(index, unit) for unit in await self.engines.call(index, lanes, rows)]
            except Lost as fault:
                if fault.suspects:
                    return await self._alone(lanes, rows)
                avoid.add(index)

    async def _usable(self, avoid: set[int]) -> int:
        while (index := self.replicas.pick(avoid)) is None:
            self.engines.require_hope()
            await asyncio.sleep(LOOK_EVERY_S)
        return index

    async def _alone(self, lanes: Lanes, rows: list[Asked]) -> list[tuple[int | None, UnitResult]]:
        """Ask rows of a lost engine again, alone."""
        loop = asyncio.get_running_loop()
        waiting = [_Waiting(lanes, row, loop.create_future()) for row in rows]
        self.suspects.add(waiting)
        if not self.trying_suspects:
            self.trying_suspects = True
            self.engines.go(self._try_suspects())
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
            self.engines.require_hope()
            if index is not None and self.replicas.usable(index) and not self.replicas.load[index]:
                return index
            await asyncio.sleep(LOOK_EVERY_S)

    async def _try_group(self, group: Group[_Waiting], index: int) -> None:
        rows = [suspect.row for suspect in group]
        lanes, flaps = list({id(row.lanes): row.lanes for row in rows}.values()), self.engines.flaps[index]
        parts = [[row for row in rows if row.lanes is lane] for lane in lanes]
        calls = [
            self.engines.call(index, lane, [row.asked for row in part]) for lane, part in zip(lanes, parts, strict=True)
        ]
        answered = await asyncio.gather(*calls, return_exceptions=True)
        for part, units in zip(parts, answered, strict=True):
            if isinstance(units, list):
                for row, unit in zip(part, units, strict=True):
                    _settle(row, index, unit)
        left = [suspect for suspect in group if not suspect.row.answer.done()]
        faults = [units for units in answered if isinstance(units, BaseException)]
        if not left or not faults:
            return
        if not isinstance(faults[0], Lost):
            raise faults[0]
        # A network that was away for a moment is nobody's fault: only an engine that died counts against rows.
        if not faults[0].suspects or await self.engines.unharmed(index, flaps):
            self.suspects.groups.appendleft(left)
            return
        for row in self.suspects.ended(left):
            _settle(row, None, self._convicted(row, str(faults[0])))
            self.replicas.explain(index)
        if self.known:
            await self._show_that_it_works(await self._kept_for_them())

    async def _show_that_it_works(self, index: int) -> None:
        """Ask an engine a row that was answered before: then what went wrong before was no fault of its own."""
        if self.known is None:
            return
        lanes, row = self.known
        with contextlib.suppress(Lost):
            (unit,) = await self.engines.call(index, lanes, [row])
            if reason_of(unit) != ENGINE_ERROR:
                self.replicas.answered(index)

    def _convicted(self, row: _Waiting, why: str) -> UnitResult:
        lane, asked = row.asked
        work = row.lanes.works[lane]
        unit, reason = work.program.unit_of(asked), TIMEOUT if why == STALLED else KILLED
        log.error("%s: %s is quarantined (%s): asked alone, it ended engine after engine", work.stage, unit, reason)
        return faulty(unit, work.stage, reason, f"asked alone, the engine {why}, again and again: {self.engines.cause}")

    def _try_if_resting(self, index: int) -> None:
        one = self.replicas.all[index]
        if one.resting and one.rests == 0:
            log.warning("engine %d fails: %s; its rows are asked elsewhere", index, self.engines.cause)
            self.engines.go(self._try_until_it_answers(index, self.engines.lives[index], self.replicas.rest(index)))

    async def _try_until_it_answers(self, index: int, life: asyncio.Event, pause: float) -> None:
        """Ask an engine that errs a row that was answered before, now and then."""
        failed = 0
        while self.replicas.all[index].resting and self.known and not life.is_set():
            await asyncio.sleep(pause)
            await self._show_that_it_works(index)
            if not self.replicas.all[index].resting:
                log.warning("engine %d answers again", index)
                return
            failed, pause = failed + 1, self.replicas.rest(index)
            if failed == FAILED_TRIALS and self.engines.limits.local:
                self.engines.down(index, life, "answers with errors alone", self.engines.cause, end=True)


def _settle(row: _Waiting, index: int | None, unit: UnitResult) -> None:
    if not row.answer.done():
        row.answer.set_result((index, unit))


def reason_of(unit: UnitResult) -> str | None:
    """Why a unit was quarantined; None where it was not."""
    return unit.quarantine[0]["reason"] if unit.quarantine else None
