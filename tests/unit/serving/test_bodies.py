"""Bodies of requests that come slowly, are many, or large: each costs itself alone, and memory is bounded."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi import Response
from judge_service import GOOD, NEVER, SERVICE, counted, post, run, service

from ray_app.serving import bodies

KIB = 1 / 1024  # of a MiB
PAIR = json.dumps({"instruction": GOOD, "response_a": "a", "response_b": "b"}).encode()


class Client:
    """Sends a body in parts, when it is told to."""

    def __init__(self, *parts: bytes) -> None:
        self.parts, self.go, self.sent = parts, asyncio.Event(), 0

    async def stream(self) -> AsyncIterator[bytes]:
        for part in self.parts:
            self.sent += 1
            yield part
            await self.go.wait()

    def posts(self, judge: Any) -> asyncio.Future[Response]:
        answer: Awaitable[Response] = SERVICE.judge(judge, SimpleNamespace(stream=self.stream))
        return asyncio.ensure_future(answer)


async def begun(judge: Any, clients: list[Client]) -> list[asyncio.Future[Response]]:
    """Requests whose bodies have begun to come."""
    answers = [client.posts(judge) for client in clients]
    while any(client.sent == 0 for client in clients if client.parts):
        await asyncio.sleep(0)
    return answers


@pytest.fixture
def all_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "SLOW_S", 0.0)


def test_a_body_that_is_not_there_in_time_is_answered_408() -> None:
    async def main() -> None:
        judge = service(timeout_s=0.1)
        (slow,) = await begun(judge, [Client(PAIR[:9], PAIR[9:])])
        assert (await post(judge, GOOD)).status_code == 200, "another request goes on"
        answer = await slow
        assert answer.status_code == 408
        assert json.loads(answer.body)["error"].startswith("the body was not there after 0.1")
        assert (judge.bodies.held, len(judge.bodies.coming), counted(judge, "408")) == (0, 0, 1)

    run(main)


def test_the_time_of_the_body_counts_for_its_answer() -> None:
    async def main() -> None:
        judge = service(timeout_s=0.2)
        client = Client(json.dumps({"instruction": NEVER, "response_a": "a", "response_b": "b"}).encode(), b"")
        began = asyncio.get_running_loop().time()
        (answer,) = await begun(judge, [client])
        asyncio.get_running_loop().call_later(0.15, client.go.set)
        assert (await answer).status_code == 504
        assert asyncio.get_running_loop().time() - began < 0.33

    run(main)


@pytest.mark.usefixtures("all_slow")
def test_slow_bodies_that_have_all_places_make_room_from_the_oldest_on() -> None:
    async def main() -> None:
        judge = service(max_in_flight=3)
        slow = await begun(judge, [Client(PAIR[:9], PAIR[9:]) for _ in range(3)])
        for _ in range(2):
            assert (await post(judge, GOOD)).status_code == 200
        await asyncio.sleep(0)
        assert [one.done() for one in slow] == [True, False, False], "room for one was enough"
        assert slow[0].result().status_code == 408

    run(main)


def test_bodies_that_have_just_begun_are_not_given_up_for_others() -> None:
    async def main() -> None:
        judge = service(max_in_flight=2)
        clients = [Client(PAIR[:9], PAIR[9:]) for _ in range(2)]
        coming = await begun(judge, clients)
        refused = await post(judge, GOOD)
        assert (refused.status_code, refused.headers["Retry-After"]) == (503, "1")
        for client in clients:
            client.go.set()
        assert [(await one).status_code for one in coming] == [200, 200]

    run(main)


def test_no_body_is_read_that_cannot_be_judged() -> None:
    async def main() -> None:
        judge = service(max_in_flight=1)
        taken = asyncio.ensure_future(post(judge, NEVER))
        await judge.asker.asked.wait()
        client = Client(PAIR)
        assert (await client.posts(judge)).status_code == 503
        assert client.sent == 0
        taken.cancel()

    run(main)


@pytest.mark.parametrize("slow", [False, True])
def test_many_large_bodies_hold_no_more_than_they_may(monkeypatch: pytest.MonkeyPatch, slow: bool) -> None:
    """All come at once, and half of each is there: those that have no room are refused, or slow ones make room."""
    monkeypatch.setattr(bodies, "SLOW_S", 0.0 if slow else 60.0)

    async def main() -> None:
        judge = service(max_body_mib=8 * KIB, max_held_mib=32 * KIB)
        clients = [Client(b" " * 4096, PAIR) for _ in range(40)]
        answers = [client.posts(judge) for client in clients]
        for _ in range(100):
            await asyncio.sleep(0)
            assert judge.bodies.held <= 32 * 1024
        for client in clients:
            client.go.set()
        codes = [(await answer).status_code for answer in answers]
        assert judge.bodies.held == 0
        assert set(codes) == ({200, 408} if slow else {200, 503})
        assert codes.count(200) >= 7

    run(main)


def test_a_body_is_held_until_its_pairs_are_judged() -> None:
    async def main() -> None:
        judge = service(max_body_mib=KIB, max_held_mib=KIB)
        long = {"instruction": NEVER, "response_a": "a" * 900, "response_b": "b"}
        client = Client(json.dumps(long).encode())
        client.go.set()
        answer = client.posts(judge)
        await judge.asker.asked.wait()
        assert judge.bodies.held > 900
        assert not judge.bodies.coming
        assert (await post(judge, GOOD + " " * 200)).status_code == 503
        answer.cancel()
        await asyncio.wait({answer})
        assert (await post(judge, GOOD + " " * 200)).status_code == 200

    run(main)
