"""`judge --serve`: one judge behind HTTP, on Ray Serve. Imported only there.

The deployment holds no model: it hands each pair to the least loaded engine of a pool, as the file mode does, with the
same program, prompt, seeds and parser. docs/serving.md has the requests.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import logging
import time
from typing import Any, NoReturn

import ray
from fastapi import FastAPI, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from ray import serve

from ray_app.base.schema import PairwiseRow
from ray_app.benchmarks import Faulty
from ray_app.engine.asking import Asker
from ray_app.engine.base import UnitResult, Work, alone
from ray_app.engine.pool import EnginePool
from ray_app.engine.supervisor import Lanes, Limits
from ray_app.errors import RunError
from ray_app.judging.judge import Judge
from ray_app.judging.registry import protocol_of
from ray_app.serving.http_request import Asked, HttpFault, parse_request
from ray_app.serving.settings import HttpSettings
from ray_app.system.stopping import at_most, last_act

NAME, PING_S = "judge", 5.0
END_S = 4.0  # for the requests that are being answered when the service is stopped
BUCKETS = (0.05, 0.1, 0.3, 1, 3, 10, 30, 100, 300)
app = FastAPI(title="Self-taught evaluator", docs_url=None, redoc_url=None, openapi_url=None)


class Meters:
    """What GET /metrics shows. Tokens and samples of the engines are Ray metrics besides."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter("judge_requests", "requests by status", ["status"], registry=self.registry)
        self.pairs = Counter("judge_pairs", "pairs answered by outcome", ["outcome"], registry=self.registry)
        self.tokens = Counter("judge_tokens", "tokens by kind", ["kind"], registry=self.registry)
        self.in_flight = Gauge("judge_pairs_in_flight", "pairs being judged", registry=self.registry)
        self.seconds = Histogram("judge_request_seconds", "of a request", buckets=BUCKETS, registry=self.registry)

    def judged(self, record: dict[str, Any], units: list[UnitResult]) -> None:
        """Count one pair."""
        quarantined = "quarantined" in record
        self.pairs.labels("quarantined" if quarantined else record["verdict"] or "none").inc()
        for name in ("prompt_tokens", "completion_tokens"):
            self.tokens.labels(name.removesuffix("_tokens")).inc(sum(unit.counters.get(name, 0) for unit in units))


# What the routes use stands before them: Serve freezes the application where it is declared.


async def read_body(request: Request, limit: int) -> bytes:
    """The body; of a larger one only so much that it is seen to be over the limit, so that none fills the memory."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk[: limit + 1 - len(body)]
        if len(body) > limit:
            break
    return bytes(body)


def _json(status: int, value: Any, headers: dict[str, str] | None = None) -> Response:
    text = json.dumps(value, ensure_ascii=False) + "\n"
    return Response(text, status, headers, media_type="application/json")


@serve.deployment(
    name=NAME,
    num_replicas=1,
    max_ongoing_requests=4096,
    ray_actor_options={"num_cpus": 0},
    graceful_shutdown_timeout_s=END_S,
    graceful_shutdown_wait_loop_s=0.1,
)
@serve.ingress(app)
class JudgeService:
    """The application. `work` says what is asked of an engine for one unit, and of which weights."""

    def __init__(self, actors: list[Any], engines: Limits, work: Work, mode: str, limits: HttpSettings) -> None:
        self.asker = Asker(actors, work.model, engines)
        self.work, self.protocol, self.limits = work, protocol_of(mode), limits
        self.meters, self.in_flight = Meters(), 0

    @app.post("/judge")
    async def judge(self, request: Request) -> Response:
        """Verdicts in the form of a verdict file: one record, or {"verdicts": […]}."""
        started = time.monotonic()
        try:
            response = _json(200, await self._answer(request))
        except HttpFault as fault:
            headers = {"Retry-After": "1"} if fault.status == 503 else {}
            response = _json(fault.status, {"error": fault.message}, headers)
        self.meters.requests.labels(str(response.status_code)).inc()
        self.meters.seconds.observe(time.monotonic() - started)
        return response

    @app.get("/health")
    async def health(self) -> Response:
        """200 while at least one engine answers; and whether those that are asked something make anything of it."""
        told = [pulse for pulse in await self.asker.engines.pulses(PING_S) if pulse is not None]
        status = {
            "model": self.work.model,
            "engines": len(self.asker.engines.actors),
            "answering": len(told),
            "pairs_in_flight": self.in_flight,
            "tokens": sum(pulse["made"][0] for pulse in told),
            "quiet_s": round(max((pulse["quiet_s"] for pulse in told), default=0.0), 1),
        }
        return _json(200 if told else 503, status)

    @app.get("/metrics")
    async def metrics(self) -> Response:
        self.meters.in_flight.set(self.in_flight)
        return Response(generate_latest(self.meters.registry), media_type=CONTENT_TYPE_LATEST)

    async def _answer(self, request: Request) -> dict[str, Any]:
        body = await read_body(request, self.limits.max_body_bytes)
        asked = parse_request(body, self.limits, self.work.program.samples)  # type: ignore[attr-defined]
        if self.in_flight + len(asked.pairs) > self.limits.max_in_flight:
            raise HttpFault(503, f"{self.in_flight} pairs are being judged; at most {self.limits.max_in_flight} are")
        self.in_flight += len(asked.pairs)
        try:
            records = await asyncio.gather(*(self._pair(pair, asked) for pair in asked.pairs))
        finally:
            self.in_flight -= len(asked.pairs)
        if asked.single:
            if "quarantined" in records[0]:
                raise HttpFault(422, f"the pair cannot be judged: {records[0]['quarantined']}")
            return records[0]
        return {"verdicts": records}

    async def _pair(self, pair: PairwiseRow | Faulty, asked: Asked) -> dict[str, Any]:
        units: list[UnitResult] = []
        if isinstance(pair, PairwiseRow):
            program = dataclasses.replace(self.work.program, samples=asked.votes)  # type: ignore[type-var]
            work = dataclasses.replace(self.work, program=program)
            units = await self._ask(work, self.protocol.row_units(NAME, pair))
        fault = None if isinstance(pair, PairwiseRow) else pair.reason
        record = self.protocol.answered(pair.id, units, asked.votes, fault, asked.explanations)
        self.meters.judged(record, units)
        return record

    async def _ask(self, work: Work, rows: list[dict[str, Any]]) -> list[UnitResult]:
        try:
            async with asyncio.timeout(self.limits.timeout_s):
                return await self.asker.ask(Lanes((work,), (work,)), alone(rows))
        except TimeoutError:
            raise HttpFault(504, f"not answered after {self.limits.timeout_s:g} s") from None
        except RunError as fault:
            raise HttpFault(503, str(fault)) from None


def run_service(pool: EnginePool, judge: Judge, work: Work, settings: HttpSettings) -> NoReturn:
    """Serve until a signal stops it. Raises RunError when the service does not start (a port that is taken)."""
    application = Application()
    try:
        with last_act(application.end):
            application.claim()
            _start(pool, judge, work, settings)
            where = f"http://{settings.host}:{settings.port}"
            print(f"{judge.engine.model} is served at {where}: POST /judge, GET /health, GET /metrics", flush=True)
            while True:
                time.sleep(1)
    finally:
        application.end(wait=True)


def _start(pool: EnginePool, judge: Judge, work: Work, settings: HttpSettings) -> None:
    # Serve's own lines speak of replicas and routes; its log files keep them.
    quiet = {"log_level": "WARNING", "enable_access_log": False}
    try:
        serve.start(http_options={"host": settings.host, "port": settings.port}, logging_config=quiet)
        logging.getLogger("ray.serve").setLevel(logging.ERROR)
        service = JudgeService.options(logging_config=quiet).bind(  # type: ignore[attr-defined]
            pool.actors, Limits.of(pool.settings, patient=True), work, judge.mode, settings
        )
        serve.run(service, name=NAME, route_prefix="/")
    except (RuntimeError, ray.exceptions.RayError) as fault:
        lines = str(fault).strip().splitlines()
        raise RunError(f"the service did not start: {lines[-1] if lines else fault!r}") from fault


class Application:
    """What this command puts on Ray Serve. On a cluster, Serve and the applications of others may be there before."""

    def __init__(self) -> None:
        found = serve.status()
        self.serve_was_there = bool(found.proxies or found.applications)
        self.others = set(found.applications)
        self.ended = True  # nothing is there to be ended yet

    def claim(self) -> None:
        """Raises RunError where another command serves a judge on this cluster: deploying would take its place."""
        if NAME in self.others:
            raise RunError(f"the service did not start: the application {NAME!r} is served on this cluster already")
        self.ended = False

    def end(self, wait: bool = False) -> None:
        """Delete the application, and end Serve where it was started here and serves nobody else.

        Serve's controller does both and outlives this process, so without `wait` it is enough to have asked for it.
        With `wait`, requests that are being answered get some seconds to end.
        """
        if self.ended or not ray.is_initialized():
            return
        self.ended = True
        alone = not self.serve_was_there and set(serve.status().applications) <= {NAME}
        serve.delete(NAME, _blocking=False)
        until = time.monotonic() + (at_most(END_S) if wait else 0)
        while time.monotonic() < until and NAME in serve.status().applications:
            time.sleep(0.1)
        if alone:
            serve.shutdown()
