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
from collections.abc import Sequence
from typing import Any

import psutil
import ray

from ray_app.engine.backends import build_engine
from ray_app.engine.base import (
    USUAL,
    Asked,
    Engine,
    EngineDied,
    EngineError,
    PromptTooLong,
    RequestRefused,
    Start,
    UnitResult,
    Work,
)
from ray_app.engine.meters import Meters
from ray_app.engine.sample_limit import LimitedEngine, SampleTimeout
from ray_app.engine.settings import EngineSettings
from ray_app.system import scheduling
from ray_app.system.claims import VISIBLE

log = logging.getLogger(__name__)
PROMPT_TOO_LONG, REFUSED, ENGINE_ERROR, TIMEOUT = "prompt_too_long", "refused", "engine_error", "timeout"
BORN = psutil.Process().create_time()  # a number may be another process's by the time that it is to be ended
FAULTS: dict[type[Exception], str] = {
    PromptTooLong: PROMPT_TOO_LONG,
    RequestRefused: REFUSED,
    EngineError: ENGINE_ERROR,
    SampleTimeout: TIMEOUT,
}


class EngineActor:
    """One replica of a pool."""

    def __init__(self, settings: EngineSettings, role: str, start: Start = USUAL) -> None:
        self.model, self.role = "", role
        self.meters = Meters(role, start.run)
        self.reloading = asyncio.Lock()
        self.counted: Counter[str] = Counter()
        self.first_answer: float | None = None
        self.busy = BusyTime()
        self.fault: str | None = None
        self.settings, self.start = settings, start
        self.engine: Engine | None = None
        self.limited: LimitedEngine | None = None  # what programs are given
        self.parts: dict[str, float] | None = None
        self.start_seconds = 0.0
        if settings.kind == "vllm" and settings.device == "cpu":
            scheduling.compute()
        if start.gpus is not None:
            os.environ[VISIBLE] = ",".join(start.gpus)  # before anything asks CUDA which GPUs there are
        if rebuilt():
            # It died. Which weights it is to serve now, and whether its GPUs are still its own, it learns when asked.
            self.model = ""
        else:
            self._build(settings)

    def _build(self, settings: EngineSettings) -> None:
        started = time.monotonic()
        try:
            self.engine = build_engine(settings, self.start)
            # An endpoint's engine has that limit itself, and knows what its tries came to.
            limit = None if settings.kind == "openai" else settings.request_timeout_s
            self.limited = LimitedEngine(self.engine, limit, settings.in_flight)
            self.model = "" if self.start.without_weights else settings.model
        except Exception as fault:  # kept and told by `ready`: raised here, Ray would start the actor again and again
            log.exception("%s: the engine did not start", self.role)
            self.fault = one_line(fault)
        self.start_seconds = time.monotonic() - started

    async def _built(self, model: str) -> Engine:
        """The engine; where there is none yet, one that starts with the weights of `model`, for those of the first
        start may be gone. Raises RuntimeError where it did not start.
        """
        if self.engine is None and self.fault is None:
            other = model and model != self.settings.model and not self.start.without_weights
            await asyncio.to_thread(self._build, self.settings.of_checkpoint(model) if other else self.settings)
        if self.engine is None:
            raise RuntimeError(self.fault)
        return self.engine

    async def ready(self) -> dict[str, Any]:
        """Seconds to start, the process and its node, whether there is an engine, or the fault that kept it from
        starting.
        """
        if self.parts is None and self.engine is not None:  # asked once: a ping must not wait for a step of vLLM
            self.parts = await self.engine.start_parts()
        told = {"fault": self.fault, "seconds": self.start_seconds, "parts": self.parts or {}}
        return {**told, **self._here(), "built": self.engine is not None}

    def _here(self) -> dict[str, Any]:
        node = ray.get_runtime_context().get_node_id() if ray.is_initialized() else ""
        return {"pid": os.getpid(), "born": BORN, "node": node}

    async def pulse(self) -> dict[str, Any]:
        """What changes while the engine works (`made`), and whether any row is at work."""
        made = self.limited.made if self.limited else (0, 0)
        return {**self._here(), "built": self.engine is not None, "made": made, "at_work": self.busy.many}

    async def revive(self, model: str) -> str | None:
        """Start the engine with the weights of `model`, where there is none (the process was built anew); nothing where
        there is. The fault in one line.
        """
        try:
            await self.reload(model)
        except RuntimeError as fault:
            return str(fault)
        return None

    async def run(self, lanes: Sequence[Work], rows: list[Asked]) -> list[UnitResult]:
        """Results of `rows`, which run side by side, in their order; all lanes ask the same weights. Call `ask`."""
        await self.reload(lanes[0].model)
        return list(await asyncio.gather(*(self._one(lanes[lane], row) for lane, row in rows)))

    async def _one(self, work: Work, row: dict[str, Any]) -> UnitResult:
        started = time.monotonic()
        self.meters.began()
        reason, detail = "", ""
        try:
            with self.busy:
                result = await work.program(self._limited(), row)
        except EngineDied as fault:
            log.error("%s: the engine died: %s", self.role, fault)
            os._exit(1)  # only a process that dies is built anew by Ray, and its rows asked again
        except tuple(FAULTS) as fault:
            reason, detail = FAULTS[type(fault)], str(fault)
        except Exception as fault:
            log.exception("%s: a program failed", self.role)
            reason, detail = ENGINE_ERROR, one_line(fault)
        if reason:
            result = faulty(work.program.unit_of(row), work.stage, reason, detail)
        self._count(result, work, time.monotonic() - started)
        return result

    def _limited(self) -> LimitedEngine:
        assert self.limited is not None, "`run` has started it"
        return self.limited

    def _count(self, result: UnitResult, work: Work, seconds: float) -> None:
        if self.first_answer is None and result.rows:
            self.first_answer = time.time()
        self.counted.update(units=1, failures=len(result.quarantine))
        self.counted.update({name: int(value) for name, value in result.counters.items()})
        self.meters.count(result, work, seconds)

    async def stats(self) -> dict[str, Any]:
        """Counts since the start, and when the first unit finished since the engine had its weights (Unix time)."""
        return {**self.counted, "first_answer": self.first_answer, "start_seconds": self.start_seconds}

    async def busy_seconds(self) -> float:
        """Seconds since the start in which at least one row was at work."""
        return self.busy.seconds()

    async def generated(self) -> int:
        """Tokens made since the start, those of unfinished requests included."""
        return 0 if self.engine is None else self.engine.generated()

    async def serving(self) -> str:
        """The weights in the engine."""
        return self.model

    async def reload(self, model: str) -> float:
        """Serve other weights of the same shape; returns seconds. Raises RuntimeError with the cause in one line."""
        started = time.monotonic()
        async with self.reloading:
            if self.engine is None or self.model != model:
                await self._take(model)
        return time.monotonic() - started

    async def _take(self, model: str, wakes: bool = False) -> None:
        try:
            there, engine = self.engine is not None, await self._built(model)
            if wakes and there:
                await engine.wake(model)
            elif self.model != model:
                await engine.reload(model)
        except Exception as fault:
            raise RuntimeError(str(fault) if self.fault else one_line(fault)) from None
        self.model, self.first_answer = model, None

    async def sleep(self) -> None:
        """Give up weights and caches. Raises RuntimeError with the cause in one line."""
        if self.engine is None:
            return
        try:
            await self.engine.sleep()
        except Exception as fault:
            raise RuntimeError(one_line(fault)) from None

    async def wake(self, model: str) -> None:
        """Answer again, with the weights of `model`. Raises RuntimeError with the cause in one line."""
        async with self.reloading:
            await self._take(model, wakes=True)

    async def close(self) -> None:
        """Give back what the engine holds."""
        if self.engine is not None:
            await self.engine.close()


class BusyTime:
    """How long at least one block was open. Of one event loop."""

    def __init__(self) -> None:
        self.total, self.many, self.since = 0.0, 0, 0.0

    def __enter__(self) -> None:
        if self.many == 0:
            self.since = time.monotonic()
        self.many += 1

    def __exit__(self, *_: object) -> None:
        self.many -= 1
        if self.many == 0:
            self.total += time.monotonic() - self.since

    def seconds(self) -> float:
        """So far, the open blocks included."""
        return self.total + (time.monotonic() - self.since if self.many else 0.0)


def ask(actor: Any, lanes: Any, rows: list[Asked]) -> Any:
    """Call `run` of an actor, once: Ray would ask a row that ends the engine again and again."""
    return actor.run.options(max_task_retries=0).remote(lanes, rows)


async def value(reference: Any) -> Any:
    """What a Ray reference stands for."""
    return await reference


def rebuilt() -> bool:
    """Whether Ray has started this actor again, after its process died."""
    return ray.is_initialized() and bool(ray.get_runtime_context().was_current_actor_reconstructed)


def faulty(unit: str, stage: str, reason: str, detail: str) -> UnitResult:
    """A unit with nothing but its quarantine entry."""
    entry = {"id": unit, "stage": stage, "reason": reason, "detail": detail[:2000]}
    return UnitResult(unit=unit, quarantine=[entry])


def one_line(fault: BaseException) -> str:
    """Type and first line of a fault."""
    lines = str(fault).strip().splitlines()
    return f"{type(fault).__name__}: {lines[0] if lines else ''}"[:500]
