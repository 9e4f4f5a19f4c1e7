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
from ray.serve.context import _get_global_client

from ray_app.base.schema import PairwiseRow
from ray_app.benchmarks import Faulty
from ray_app.engine.actor import value
from ray_app.engine.asking import Asker
from ray_app.engine.base import UnitResult, Work, alone
from ray_app.engine.pool import EnginePool
from ray_app.engine.supervisor import GONE, Lanes, Limits
from ray_app.errors import RunError
from ray_app.judging.judge import Judge
from ray_app.judging.registry import protocol_of
from ray_app.serving.application import END_S, NAME, Application, Owner
from ray_app.serving.bodies import Bodies
from ray_app.serving.http_request import Asked, HttpFault, parse_request
from ray_app.serving.settings import HttpSettings
from ray_app.system.stopping import last_act

PING_S = 5.0
SPARE = 2048  # requests that Serve hands over beside those that are read and judged: answered at once
BUCKETS = (0.05, 0.1, 0.3, 1, 3, 10, 30, 100, 300)
log = logging.getLogger(__name__)
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


def _json(status: int, value: Any, headers: dict[str, str] | None = None) -> Response:
    text = json.dumps(value, ensure_ascii=False) + "\n"
    return Response(text, status, headers, media_type="application/json")


async def _gone(actor: Any) -> bool:
    try:
        await asyncio.wait_for(value(actor.pulse.remote()), PING_S)
    except GONE:
        return True
    except (TimeoutError, ray.exceptions.RayError):
        pass  # busy, or being built anew: somebody looks after it
    return False


@serve.deployment(
    name=NAME,
    num_replicas=1,
    ray_actor_options={"num_cpus": 0},
    graceful_shutdown_timeout_s=END_S,
    graceful_shutdown_wait_loop_s=0.1,
)
@serve.ingress(app)
class JudgeService:
    """The application. `work` says what is asked of an engine for one unit, and of which weights."""

    def __init__(
        self, actors: list[Any], engines: Limits, work: Work, mode: str, limits: HttpSettings, owner: Owner
    ) -> None:
        self.asker = Asker(actors, work.model, engines)
        self.work, self.protocol, self.limits, self.deployed_by = work, protocol_of(mode), limits, owner
        self.meters, self.bodies, self.in_flight = Meters(), Bodies(limits), 0

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

    async def owner(self) -> Owner:
        """Which command has deployed this. Not over HTTP."""
        return self.deployed_by

    async def abandoned(self) -> bool:
        """Whether every engine is gone for good, as engines are whose command was killed. Not over HTTP."""
        return all(await asyncio.gather(*(_gone(actor) for actor in self.asker.engines.actors)))

    async def _answer(self, request: Request) -> dict[str, Any]:
        until = asyncio.get_running_loop().time() + self.limits.timeout_s
        self._require_places(1)  # else what cannot be judged would be read
        with self.bodies.held_until_answered() as body:
            content = await self.bodies.read(body, request.stream(), until)
            # What is served is a judge's program, which has votes; a `Program` in general does not.
            asked = parse_request(content, self.limits, self.work.program.samples)  # type: ignore[attr-defined]
            self._require_places(len(asked.pairs))
            records = await self._records(asked, until)
        if asked.single:
            if "quarantined" in records[0]:
                raise HttpFault(422, f"the pair cannot be judged: {records[0]['quarantined']}")
            return records[0]
        return {"verdicts": records}

    def _require_places(self, pairs: int) -> None:
        if self.in_flight + pairs > self.limits.max_in_flight:
            raise HttpFault(503, f"{self.in_flight} pairs are being judged; at most {self.limits.max_in_flight} are")

    async def _records(self, asked: Asked, until: float) -> list[dict[str, Any]]:
        """One a pair. With the first fault nobody waits for the others, and they are given up; each pair has its place
        until it has ended itself.
        """
        try:
            async with asyncio.TaskGroup() as group:
                tasks = []
                for pair in asked.pairs:
                    tasks.append(group.create_task(self._pair(pair, asked, until)))
                    self.in_flight += 1
                    tasks[-1].add_done_callback(self._free)  # also of one that is given up before it began
        except ExceptionGroup as faults:
            raise faults.exceptions[0] from None
        return [task.result() for task in tasks]

    def _free(self, _: object) -> None:
        self.in_flight -= 1

    async def _pair(self, pair: PairwiseRow | Faulty, asked: Asked, until: float) -> dict[str, Any]:
        units: list[UnitResult] = []
        if isinstance(pair, PairwiseRow):
            program = dataclasses.replace(self.work.program, samples=asked.votes)  # type: ignore[type-var]
            work = dataclasses.replace(self.work, program=program)
            units = await self._ask(work, self.protocol.row_units(NAME, pair), until)
        fault = None if isinstance(pair, PairwiseRow) else pair.reason
        record = self.protocol.answered(pair.id, units, asked.votes, fault, asked.explanations)
        self.meters.judged(record, units)
        return record

    async def _ask(self, work: Work, rows: list[dict[str, Any]], until: float) -> list[UnitResult]:
        try:
            async with asyncio.timeout_at(until):
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
            where = _start(pool, judge, work, settings, application.owner)
            print(f"{judge.engine.model} is served at {where}: POST /judge, GET /health, GET /metrics", flush=True)
            while True:
                time.sleep(1)
    finally:
        application.end(wait=True)


def _start(pool: EnginePool, judge: Judge, work: Work, settings: HttpSettings, owner: Owner) -> str:
    """Deploy the application. Where it is to be found, as a URL."""
    # Serve's own lines speak of replicas and routes; its log files keep them.
    quiet = {"log_level": "WARNING", "enable_access_log": False}
    logging.getLogger("ray.serve").setLevel(logging.ERROR)
    try:
        serve.start(http_options={"host": settings.host, "port": settings.port}, logging_config=quiet)
        where = _where(settings)
        ongoing = 2 * settings.max_in_flight + SPARE
        # Serve's decorator makes a deployment of the class, and says no types of it.
        deployment = JudgeService.options(max_ongoing_requests=ongoing, logging_config=quiet)  # type: ignore[attr-defined]
        engines = Limits.of(pool.settings, patient=True)
        service = deployment.bind(pool.actors, engines, work, judge.mode, settings, owner)
        serve.run(service, name=NAME, route_prefix="/")
    except (RuntimeError, ray.exceptions.RayError) as fault:
        lines = str(fault).strip().splitlines()
        raise RunError(f"the service did not start: {lines[-1] if lines else fault!r}") from fault
    return where


def _where(settings: HttpSettings) -> str:
    """The URL of Ray Serve, which has one address for all applications of a cluster.

    One that was there before keeps its own, whatever is asked for. The command says so and serves there: to refuse
    would help nobody, for no other address can be had while that Serve is up, and the engines are loaded by now.
    """
    found = _get_global_client().http_config
    asked, real = f"{settings.host}:{settings.port}", f"{found.host}:{found.port}"
    if real != asked:
        log.warning(
            "Ray Serve is up on this cluster already, and listens at %s for all applications: http.host and http.port"
            " (%s) have no effect",
            real,
            asked,
        )
    return f"{'https' if found.ssl_certfile else 'http'}://{real}"
