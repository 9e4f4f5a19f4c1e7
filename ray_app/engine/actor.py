"""The engine actor: hosts one engine, runs programs next to it, and reports Ray metrics.

A fault of a row becomes a quarantine entry with its reason; it never takes the batch with it. Model libraries are
imported here, inside the actor, and nowhere else. Faults leave it as strings: vLLM's own do not unpickle without torch.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections import Counter
from typing import Any

from ray_app.engine.backends import build_engine
from ray_app.engine.base import EngineDied, EngineError, PromptTooLong, RequestRefused, UnitResult, Work
from ray_app.engine.meters import Meters
from ray_app.engine.settings import EngineSettings
from ray_app.system import scheduling

log = logging.getLogger(__name__)
PROMPT_TOO_LONG, REFUSED, ENGINE_ERROR = "prompt_too_long", "refused", "engine_error"


class EngineActor:
    """One replica of a pool."""

    def __init__(self, settings: EngineSettings, role: str, run: str = "") -> None:
        self.model, self.role = settings.model, role
        self.meters = Meters(role, run)
        self.reloading = asyncio.Lock()
        self.counted: Counter[str] = Counter()
        self.first_answer: float | None = None
        self.fault: str | None = None
        started = time.monotonic()
        if settings.kind == "vllm" and settings.device == "cpu":
            scheduling.compute()
        try:
            self.engine = build_engine(settings)
        except Exception as fault:  # kept and told by `ready`: raised here, Ray would start the actor again and again
            log.exception("%s: the engine did not start", role)
            self.fault = one_line(fault)
        self.start_seconds = time.monotonic() - started

    async def ready(self) -> dict[str, Any]:
        """Seconds to start and the process id, or the fault that kept the engine from starting."""
        return {"fault": self.fault, "seconds": self.start_seconds, "pid": os.getpid()}

    async def run(self, work: Work, rows: list[dict[str, Any]]) -> list[UnitResult]:
        """Results of `rows`, which run side by side, in their order."""
        if self.fault:
            raise RuntimeError(self.fault)
        if self.model != work.model:  # Ray built this actor anew, with the weights of its first start
            await self.reload(work.model)
        return list(await asyncio.gather(*(self._one(work, row) for row in rows)))

    async def _one(self, work: Work, row: dict[str, Any]) -> UnitResult:
        started = time.monotonic()
        self.meters.began()
        reason, detail = "", ""
        try:
            result = await work.program(self.engine, row)
        except PromptTooLong as fault:
            reason, detail = PROMPT_TOO_LONG, str(fault)
        except RequestRefused as fault:
            reason, detail = REFUSED, str(fault)
        except EngineError as fault:
            reason, detail = ENGINE_ERROR, str(fault)
        except EngineDied as fault:
            log.error("%s: the engine died: %s", self.role, fault)
            os._exit(1)  # only a process that dies is built anew by Ray, and its rows asked again
        except Exception as fault:
            log.exception("%s: a program failed", self.role)
            reason, detail = ENGINE_ERROR, one_line(fault)
        if reason:
            result = faulty(work.program.unit_of(row), work.stage, reason, detail)
        self._count(result, work, time.monotonic() - started)
        return result

    def _count(self, result: UnitResult, work: Work, seconds: float) -> None:
        if self.first_answer is None and result.rows:
            self.first_answer = time.time()
        self.counted.update(units=1, failures=len(result.quarantine))
        self.counted.update({name: int(value) for name, value in result.counters.items()})
        self.meters.count(result, work, seconds)

    async def stats(self) -> dict[str, Any]:
        """Counts since the start, and when the first unit finished since the engine had its weights (Unix time)."""
        return {**self.counted, "first_answer": self.first_answer, "start_seconds": self.start_seconds}

    async def generated(self) -> int:
        """Tokens made since the start, those of unfinished requests included."""
        return 0 if self.fault else self.engine.generated()

    async def serving(self) -> str:
        """The weights in the engine."""
        return self.model

    async def reload(self, model: str) -> float:
        """Serve other weights of the same shape; returns seconds. Raises RuntimeError with the cause in one line."""
        started = time.monotonic()
        async with self.reloading:
            if self.model != model:
                try:
                    await self.engine.reload(model)
                except Exception as fault:
                    raise RuntimeError(one_line(fault)) from None
                self.model, self.first_answer = model, None
        return time.monotonic() - started

    async def close(self) -> None:
        """Give back what the engine holds."""
        if self.fault is None:
            await self.engine.close()


def faulty(unit: str, stage: str, reason: str, detail: str) -> UnitResult:
    """A unit with nothing but its quarantine entry."""
    entry = {"id": unit, "stage": stage, "reason": reason, "detail": detail[:2000]}
    return UnitResult(unit=unit, quarantine=[entry])


def one_line(fault: BaseException) -> str:
    """Type and first line of a fault."""
    lines = str(fault).strip().splitlines()
    return f"{type(fault).__name__}: {lines[0] if lines else ''}"[:500]
