"""The HTTP service's own handler without Ray Serve, over engines that are a stand-in."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, TypeVar

from fastapi import Response

from ray_app.engine.base import UnitResult, Work
from ray_app.errors import RunError
from ray_app.judging.registry import protocol_of
from ray_app.serving.bodies import Bodies
from ray_app.serving.http_service import JudgeService, Meters
from ray_app.serving.settings import HttpSettings

T = TypeVar("T")
SERVICE: Any = JudgeService.func_or_class.__bases__[0]  # type: ignore[attr-defined]  # the class as it is written
GOOD, NEVER, FAILS = "Name a fruit.", "never answered", "no engine takes it"


@dataclass(frozen=True)
class Program:
    samples: int = 1


class Engines:
    """Stands for the asker: every pair is answered A, then B, but one that is never answered and one that fails."""

    def __init__(self) -> None:
        self.at_work, self.asked = 0, asyncio.Event()
        self.fault: Exception | None = None
        self.may_end = asyncio.Event()  # what was given up
        self.may_end.set()

    async def ask(self, _: Any, rows: list[Any]) -> list[UnitResult]:
        if self.fault:
            raise self.fault
        self.at_work += 1
        self.asked.set()
        try:
            if rows[0][1]["instruction"] == NEVER:
                try:
                    await asyncio.Event().wait()
                finally:
                    await self.may_end.wait()
            if rows[0][1]["instruction"] == FAILS:
                raise RunError("every engine died, and did not come back")
            answers = [{"order": row["order"], "verdict": "AB"[row["order"] == "ba"], "sample": 0} for _, row in rows]
            return [UnitResult("u", rows=[answer]) for answer in answers]
        finally:
            self.at_work -= 1


def service(**limits: Any) -> Any:
    made = object.__new__(SERVICE)
    made.asker, made.work = Engines(), Work(Program(), "serve", None, "m")  # type: ignore[arg-type]
    made.protocol, made.limits = protocol_of("pairwise"), HttpSettings(**limits)
    made.meters, made.bodies, made.in_flight = Meters(), Bodies(made.limits), 0
    return made


def post(judge: Any, *instructions: str) -> Awaitable[Response]:
    """POST /judge of one pair, or of several."""
    pairs = [{"id": text, "instruction": text, "response_a": "a", "response_b": "b"} for text in instructions]

    async def stream() -> Any:
        yield json.dumps(pairs[0] if len(pairs) == 1 else {"pairs": pairs}).encode()

    answer: Awaitable[Response] = SERVICE.judge(judge, SimpleNamespace(stream=stream))
    return answer


def run(main: Callable[[], Awaitable[T]]) -> T:
    return asyncio.run(asyncio.wait_for(main(), 60))


def counted(judge: Any, status: str) -> float | None:
    found: float | None = judge.meters.registry.get_sample_value("judge_requests_total", {"status": status})
    return found
