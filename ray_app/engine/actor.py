"""The engine actor: hosts one engine and runs programs next to it, and reports Ray metrics.

A fault of a row becomes a quarantine entry with its reason; it never takes the batch with it.
"""

from __future__ import annotations

import asyncio
import os
import time
from typing import Any

from ray_app.engine.base import Engine, EngineError, Program, PromptTooLong, UnitResult
from ray_app.engine.settings import EngineSettings

ENGINE_ERROR = "engine_error"
COUNTED = ("prompt_tokens", "completion_tokens", "samples", "kept", "unparsed")


def build_engine(settings: EngineSettings) -> Engine:
    """The engine of these settings. Model libraries are imported here, inside the actor, and nowhere else."""
    if settings.kind == "openai":
        from ray_app.engine.openai_engine import OpenAIEngine

        return OpenAIEngine(settings)
    if settings.kind == "scripted":
        from ray_app.engine.scripted import ScriptedEngine

        return ScriptedEngine(settings)
    from ray_app.engine.vllm_engine import VllmEngine

    return VllmEngine(settings)


class EngineActor:
    """One replica of a pool."""

    def __init__(self, settings: EngineSettings, role: str) -> None:
        self.fault: str | None = None
        self.metrics = Metrics(role)
        started = time.monotonic()
        try:
            self.engine = build_engine(settings)
        except Exception as fault:  # kept and told by `ready`: raised here, Ray would start the actor again and again
            self.fault = one_line(fault)
        self.start_seconds = time.monotonic() - started

    async def ready(self) -> dict[str, Any]:
        """Seconds to start and the process id, or the fault that kept the engine from starting."""
        return {"fault": self.fault, "seconds": self.start_seconds, "pid": os.getpid()}

    async def run(self, program: Program, rows: list[dict[str, Any]], stage: str) -> list[UnitResult]:
        """Results of `rows`, which run side by side."""
        return list(await asyncio.gather(*(self._one(program, row, stage) for row in rows)))

    async def _one(self, program: Program, row: dict[str, Any], stage: str) -> UnitResult:
        started = time.monotonic()
        try:
            result = await program(self.engine, row)
        except PromptTooLong as fault:
            result = faulty(program.unit_of(row), stage, "prompt_too_long", str(fault))
        except EngineError as fault:
            result = faulty(program.unit_of(row), stage, ENGINE_ERROR, str(fault))
        except asyncio.CancelledError:
            raise
        except Exception as fault:
            result = faulty(program.unit_of(row), stage, ENGINE_ERROR, one_line(fault))
        self.metrics.count(result, time.monotonic() - started)
        return result

    async def reload(self, model: str) -> float:
        """Serve other weights of the same shape; returns seconds."""
        started = time.monotonic()
        await self.engine.reload(model)
        return time.monotonic() - started

    async def close(self) -> None:
        if self.fault is None:
            await self.engine.close()


def faulty(unit: str, stage: str, reason: str, detail: str) -> UnitResult:
    """A unit with nothing but its quarantine entry."""
    entry = {"id": unit, "stage": stage, "reason": reason, "detail": detail[:2000]}
    return UnitResult(unit=unit, quarantine=[entry])


def one_line(fault: BaseException) -> str:
    """Type and first line: vLLM's exceptions are not picklable without torch, and tell little more."""
    lines = str(fault).strip().splitlines()
    return f"{type(fault).__name__}: {lines[0] if lines else ''}"[:500]


class Metrics:
    """Ray metrics of one replica, tagged by role: `ray_ste_…_total` at the node's metrics port."""

    def __init__(self, role: str) -> None:
        from ray.util.metrics import Counter, Histogram

        def counter(name: str, text: str) -> Any:
            made = Counter(f"ste_{name}", description=text, tag_keys=("role",))
            made.set_default_tags({"role": role})
            return made

        self.rows = counter("rows", "units finished")
        self.failures = counter("failures", "units quarantined")
        self.counted = {name: counter(name, f"{name.replace('_', ' ')} of finished units") for name in COUNTED}
        self.latency = Histogram(
            "ste_unit_seconds",
            description="seconds from a unit's start to its end",
            boundaries=[0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000],
            tag_keys=("role",),
        )
        self.latency.set_default_tags({"role": role})

    def count(self, result: UnitResult, seconds: float) -> None:
        """Add one finished unit."""
        self.rows.inc()
        if result.quarantine:
            self.failures.inc(len(result.quarantine))
        for name, metric in self.counted.items():
            if result.counters.get(name):
                metric.inc(result.counters[name])
        self.latency.observe(seconds)
