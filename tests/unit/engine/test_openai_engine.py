"""The endpoint engine against a real HTTP server of this process: retries, refusals, usage, concurrency, hangs."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from ray_app.engine.actor import EngineActor
from ray_app.engine.base import Completion, EngineError, RequestRefused, Sampler, Sampling, UnitResult, Work, alone
from ray_app.engine.openai_engine import OpenAIEngine
from ray_app.engine.sample_limit import SampleTimeout
from ray_app.engine.settings import EngineSettings

HI = [{"role": "user", "content": "hi"}]


class Endpoint(ThreadingHTTPServer):
    """Answers by a list of status codes (the last one for ever), and remembers what it was asked."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.codes, self.delay, self.stop_reason = [200], 0.0, None
        self.together = threading.Barrier(1)  # so many requests are answered together
        self.asked: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.running = self.most = 0
        self.guard = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


class Handler(BaseHTTPRequestHandler):
    server: Endpoint
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def do_POST(self) -> None:
        at = self.server
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with at.guard:
            at.asked.append(body)
            at.keys.append(self.headers.get("Authorization"))
            at.running += 1
            at.most = max(at.most, at.running)
            code = at.codes.pop(0) if len(at.codes) > 1 else at.codes[0]
        at.together.wait(60)
        time.sleep(at.delay)  # in which one too many would show itself
        with at.guard:
            at.running -= 1
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "It is "}}
        if at.stop_reason:
            choice["stop_reason"] = at.stop_reason
        usage = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
        good = {"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice], "usage": usage}
        payload = json.dumps(good if code == 200 else {"error": {"message": "prompt is not allowed"}}).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    server = Endpoint()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def ask(server: Endpoint, times: int = 1, sampling: Sampling | None = None, **more: Any) -> list[Completion]:
    part = {"base_url": server.url, "max_retries": 2, "concurrency": 4, **more.pop("endpoint", {})}
    settings = EngineSettings(model="m", kind="openai", endpoint=part, **more)

    async def main() -> list[Completion]:
        engine = OpenAIEngine(settings)
        prepared = engine.prepare(HI)  # type: ignore[arg-type]
        try:
            return list(
                await asyncio.gather(
                    *(engine.generate(prepared, sampling or Sampling(), 2**40 + i) for i in range(times))
                )
            )
        finally:
            await engine.close()

    return asyncio.run(main())


def test_request_and_answer(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_GATEWAY", "secret-1")
    sampling = Sampling(temperature=0.5, top_p=0.8, max_tokens=9, stop=("[[A]]",), include_stop=True)
    kwargs = {"enable_thinking": False}
    (done,) = ask(endpoint, sampling=sampling, chat_template_kwargs=kwargs, endpoint={"api_key_env": "MY_GATEWAY"})
    assert done == Completion("It is ", "stop", 7, 3)
    (asked,) = endpoint.asked
    assert (asked["temperature"], asked["top_p"], asked["max_tokens"], asked["stop"]) == (0.5, 0.8, 9, ["[[A]]"])
    assert asked["messages"] == HI
    assert asked["seed"] == 2**40 % 2**31
    assert asked["include_stop_str_in_output"] is True
    assert asked["chat_template_kwargs"] == kwargs
    assert endpoint.keys == ["Bearer secret-1"]


def test_a_stop_string_left_out_by_the_server_is_put_back(endpoint: Endpoint) -> None:
    endpoint.stop_reason = "[[A]]"
    (done,) = ask(endpoint, sampling=Sampling(stop=("[[A]]", "[[B]]"), include_stop=True))
    assert done.text == "It is [[A]]"


def test_seeds_can_be_left_out(endpoint: Endpoint) -> None:
    ask(endpoint, seeded=False)
    assert "seed" not in endpoint.asked[0]


def test_passing_faults_are_retried(endpoint: Endpoint) -> None:
    endpoint.codes = [429, 503, 200]
    assert ask(endpoint)[0].completion_tokens == 3
    assert len(endpoint.asked) == 3


def test_lasting_faults_are_engine_errors(endpoint: Endpoint) -> None:
    endpoint.codes = [500]
    with pytest.raises(EngineError, match="InternalServerError"):
        ask(endpoint)
    assert len(endpoint.asked) == 3
    endpoint.codes = [401]
    with pytest.raises(EngineError, match="Authentication"):
        ask(endpoint)


def test_a_refused_request_is_a_fault_of_its_row(endpoint: Endpoint) -> None:
    endpoint.codes = [400]
    with pytest.raises(RequestRefused, match="prompt is not allowed"):
        ask(endpoint)
    assert len(endpoint.asked) == 1  # not asked again


def test_concurrency_is_bounded(endpoint: Endpoint) -> None:
    endpoint.delay, endpoint.together = 0.05, threading.Barrier(4)
    assert len(ask(endpoint, times=24)) == 24
    assert endpoint.most == 4


def test_no_server(endpoint: Endpoint) -> None:
    endpoint.shutdown()
    endpoint.server_close()
    with pytest.raises(EngineError, match="APIConnectionError"):
        ask(endpoint, endpoint={"max_retries": 0})


def test_the_limit_has_the_name_that_the_server_knows_and_further_fields_go_along(endpoint: Endpoint) -> None:
    part = {"max_tokens_field": "max_completion_tokens", "extra_body": {"top_k": 5}}
    ask(endpoint, sampling=Sampling(max_tokens=9), endpoint=part)
    (asked,) = endpoint.asked
    assert (asked["max_completion_tokens"], asked["top_k"]) == (9, 5)
    assert "max_tokens" not in asked


# Below, a hang is one of a real socket: it is there, takes the request, and says nothing.
GOOD = (
    b'{"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": [{"index": 0,'
    b' "finish_reason": "stop", "message": {"role": "assistant", "content": "It is "}}],'
    b' "usage": {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}}'
)
LIMIT_S = 2.0  # long enough for a first try on a busy machine


class Socket:
    """Answers each request with the next of `replies` (status line and further headers), the last one for ever;
    nothing at all for one that is empty.
    """

    def __init__(self, *replies: str) -> None:
        self.replies, self.asked, self.given_up = list(replies), 0, asyncio.Event()

    async def __aenter__(self) -> Socket:
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self.server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self.server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:"))
        await reader.readexactly(int(length.split(b":")[1]))
        self.asked += 1
        reply = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
        if reply:
            status = f"HTTP/1.1 {reply}\r\nContent-Length: {len(GOOD)}\r\nConnection: close\r\n\r\n"
            writer.write(status.encode() + GOOD)
            await writer.drain()
        else:
            await reader.read()  # until the client hangs up
            self.given_up.set()
        writer.close()

    def settings(self, max_retries: int = 6, limit_s: float = LIMIT_S) -> EngineSettings:
        part = {"base_url": f"http://127.0.0.1:{self.port}/v1", "max_retries": max_retries}
        return EngineSettings(model="m", kind="openai", endpoint=part, request_timeout_s=limit_s)


async def one_sample(settings: EngineSettings) -> Completion:
    engine = OpenAIEngine(settings)
    try:
        return await engine.generate(engine.prepare(HI), Sampling(), None)  # type: ignore[arg-type]
    finally:
        await engine.close()


class OneSample:
    """A program of one sample."""

    def unit_of(self, row: dict[str, Any]) -> str:
        return str(row["id"])

    async def __call__(self, engine: Sampler, row: dict[str, Any]) -> UnitResult:
        await engine.generate(engine.prepare(HI), Sampling(), None)  # type: ignore[arg-type]
        return UnitResult(self.unit_of(row))


def test_a_row_that_an_endpoint_never_answers_is_quarantined_as_timeout_after_one_try() -> None:
    async def main() -> list[UnitResult]:
        async with Socket("") as endpoint:
            actor = EngineActor(endpoint.settings(), "judge")
            units = await actor.run([Work(OneSample(), "judgments", 1, "m")], alone([{"id": "r1"}]))
            await endpoint.given_up.wait()
            assert endpoint.asked == 1, "the limit is one of the sample, not of each try"
            await actor.close()
        return units

    (unit,) = asyncio.run(asyncio.wait_for(main(), 60))
    detail = "a sample was not finished after 2 s"
    assert unit.quarantine == [{"id": "r1", "stage": "judgments", "reason": "timeout", "detail": detail}]


def test_one_deadline_is_over_all_tries_of_a_sample() -> None:
    async def main() -> int:
        async with Socket("503 Busy\r\nretry-after-ms: 10", "") as endpoint:
            with pytest.raises(SampleTimeout, match="not finished after 2 s"):
                await one_sample(endpoint.settings())
            await endpoint.given_up.wait()
        return endpoint.asked

    assert asyncio.run(asyncio.wait_for(main(), 60)) == 2


def test_the_wait_for_a_turn_counts_too() -> None:
    """Else what waits behind a hang would wait for the time of each before it, and then for its own."""

    async def main() -> int:
        async with Socket("200 OK") as endpoint:
            engine = OpenAIEngine(endpoint.settings(limit_s=0.1))
            for _ in range(engine.settings.endpoint.concurrency):
                await engine.slots.acquire()  # others are asked, and never answered
            with pytest.raises(SampleTimeout):
                await engine.generate(engine.prepare(HI), Sampling(), None)  # type: ignore[arg-type]
            await engine.close()
        return endpoint.asked

    assert asyncio.run(asyncio.wait_for(main(), 60)) == 0


def test_an_endpoint_that_fails_once_and_then_answers_costs_nothing() -> None:
    async def main() -> int:
        async with Socket("503 Busy", "200 OK") as endpoint:
            assert await one_sample(endpoint.settings(limit_s=60)) == Completion("It is ", "stop", 7, 3)
        return endpoint.asked

    assert asyncio.run(asyncio.wait_for(main(), 60)) == 2


def test_no_row_is_blamed_for_an_endpoint_that_still_fails_when_the_time_is_over() -> None:
    async def main() -> int:
        async with Socket("429 Too Many\r\nretry-after: 100") as endpoint:
            with pytest.raises(EngineError, match=r"^the endpoint still failed after 2 s: 429 Too Many$"):
                await one_sample(endpoint.settings())
        return endpoint.asked

    assert asyncio.run(asyncio.wait_for(main(), 60)) == 1


def test_no_row_is_blamed_for_an_endpoint_that_takes_no_connection_until_the_time_is_over() -> None:
    async def main() -> None:
        async with Socket("") as endpoint:
            settings = endpoint.settings(max_retries=1000)
        with pytest.raises(EngineError, match=r"^the endpoint still failed after 2 s: ConnectError: "):
            await one_sample(settings)

    asyncio.run(asyncio.wait_for(main(), 60))
