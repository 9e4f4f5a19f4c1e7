"""`judge --serve` where an answer comes too late, or nobody waits for it: what the client gets, and what is left of it.

The engines are a stand-in, and the request is the handler's own; that Ray Serve cancels a handler whose client has gone
shows in `integration/test_serve.py`.
"""

from __future__ import annotations

import asyncio
import json

import pytest
from judge_service import FAILS, GOOD, NEVER, counted, post, run, service

from ray_app.errors import RunError


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


def test_with_the_fault_of_one_pair_the_others_are_given_up_and_each_has_its_place_until_it_ends() -> None:
    async def main() -> None:
        judge = service(max_in_flight=3)
        judge.asker.may_end.clear()
        answer = asyncio.ensure_future(post(judge, NEVER, FAILS, GOOD))
        await judge.asker.asked.wait()
        try:
            for _ in range(10):
                await asyncio.sleep(0)
            assert judge.in_flight == judge.asker.at_work == 1, "an engine still works for it"
            assert (await post(judge, GOOD, "another", "a third")).status_code == 503
        finally:
            judge.asker.may_end.set()
        assert (await answer).status_code == 503
        assert judge.in_flight == judge.asker.at_work == 0
        assert (await post(judge, GOOD, "another", "a third")).status_code == 200

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
