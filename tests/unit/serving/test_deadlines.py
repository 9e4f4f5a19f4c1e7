"""`judge --serve` where an answer comes too late, or nobody waits for it: what the client gets, and what is left of it.

The engines are a stand-in, and the request is the handler's own; that Ray Serve cancels a handler whose client has gone
is Ray's part.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, TypeVar

import pytest
from fastapi import Response

from ray_app.engine.base import UnitResult, Work
from ray_app.errors import RunError
from ray_app.judging.registry import protocol_of
from ray_app.serving.http_service import JudgeService, Meters
from ray_app.serving.settings import HttpSettings

T = TypeVar("T")
SERVICE: Any = JudgeService.func_or_class.__bases__[0]  # type: ignore[attr-defined]  # the class as it is written
GOOD, NEVER = "Name a fruit.", "never answered"


@dataclass(frozen=True)
class Program:
    samples: int = 1


class Engines:
    """Stands for the asker: every pair is answered A, then B, but one that is never answered."""

    def __init__(self) -> None:
        self.at_work, self.asked = 0, asyncio.Event()
        self.fault: Exception | None = None

    async def ask(self, _: Any, rows: list[Any]) -> list[UnitResult]:
        if self.fault:
            raise self.fault
        self.at_work += 1
        self.asked.set()
        try:
            if rows[0][1]["instruction"] == NEVER:
                await asyncio.Event().wait()
            answers = [{"order": row["order"], "verdict": "AB"[row["order"] == "ba"], "sample": 0} for _, row in rows]
            return [UnitResult("u", rows=[answer]) for answer in answers]
        finally:
            self.at_work -= 1


def service(**limits: Any) -> Any:
    made = object.__new__(SERVICE)
    made.asker, made.work = Engines(), Work(Program(), "serve", None, "m")  # type: ignore[arg-type]
    made.protocol, made.limits = protocol_of("pairwise"), HttpSettings(**limits)
    made.meters, made.in_flight = Meters(), 0
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


@pytest.mark.parametrize("instructions", [(NEVER,), (NEVER, GOOD)])
def test_what_is_not_answered_in_time_is_answered_504_and_given_up(instructions: tuple[str, ...]) -> None:
    async def main() -> None:
        judge = service(timeout_s=0.05)
        late, other = await asyncio.gather(post(judge, *instructions), post(judge, GOOD))
        assert late.status_code == 504
        assert json.loads(late.body) == {"error": "not answered after 0.05 s"}
        assert (other.status_code, json.loads(other.body)["verdict"]) == (200, "A"), "another request goes on"
        assert judge.asker.at_work == 0, "the engines do not work on for nobody"
        assert judge.in_flight == 0
        assert (counted(judge, "504"), counted(judge, "200")) == (1, 1)

    run(main)


def test_a_client_that_hangs_up_leaves_no_work_and_no_place_taken() -> None:
    """Else a client that asks again and again would fill `http.max_in_flight` with what nobody waits for."""

    async def main() -> None:
        judge = service(max_in_flight=1)
        gone = asyncio.ensure_future(post(judge, NEVER))
        await judge.asker.asked.wait()
        assert (await post(judge, GOOD)).status_code == 503, "its place is taken"
        gone.cancel()
        await asyncio.wait({gone})
        assert gone.cancelled()
        assert (judge.asker.at_work, judge.in_flight) == (0, 0)
        assert (await post(judge, GOOD)).status_code == 200

    run(main)


def test_without_any_engine_it_answers_503_with_the_cause() -> None:
    async def main() -> None:
        judge = service()
        judge.asker.fault = RunError("every engine died, and did not come back")
        answer = await post(judge, GOOD)
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
        assert json.loads(answer.body) == {"error": "every engine died, and did not come back"}
        assert judge.in_flight == 0

    run(main)
