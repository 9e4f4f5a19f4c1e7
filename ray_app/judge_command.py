"""What `evaluate` and `judge` share: their settings, and judging a benchmark's rows into a folder."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pydantic import Field

from ray_app import best_of
from ray_app.benchmarks import Benchmark
from ray_app.cli import CommandSettings
from ray_app.cluster import connected
from ray_app.config import RaySettings, SamplingSettings
from ray_app.engine.base import Work
from ray_app.engine.manager import PoolManager
from ray_app.engine.settings import EngineSettings
from ray_app.errors import InputError
from ray_app.explanations import Explanations
from ray_app.http_request import HttpSettings
from ray_app.judge_card import BEST_OF_PROMPT, SHIPPED_PROMPTS, Judge, Mode, judge_of
from ray_app.judging import judge_rows, results_of, sources_of, units_of, verdict_records
from ray_app.metrics import write_verdicts
from ray_app.prompts import load_prompt
from ray_app.run import storage
from ray_app.run.fingerprint import Fingerprint, check, fingerprint
from ray_app.run.lease import Lease
from ray_app.runner import Runner, StageResult
from ray_app.scoring import pairwise_scoring_units, score_records, score_rows, scores_of

FINGERPRINT = "fingerprint.json"
DTYPE = "dtype"  # in it, beside the fingerprint: the format of the votes, where the setting is auto
log = logging.getLogger(__name__)


class JudgingCommand(CommandSettings):
    """Settings of a command that serves one judge."""

    model: str | None = Field(None, description="checkpoint folder or hub id")
    engine: EngineSettings = Field(EngineSettings(model=""), description="how it is served; its model is --model")
    prompt: str | None = Field(None, description="prompt file; default: the checkpoint's own, else the shipped one")
    mode: Mode | None = Field(None, description="pairwise, or pointwise: scores 1-10; default: the checkpoint's own")
    votes: int = Field(1, ge=1, description="samples an order (pointwise: a response); 1 is greedy")
    generation: SamplingSettings | None = Field(None, description="default: greedy, or T 0.7 / top_p 0.9 for votes")
    early_stop: bool = True
    stop_after_verdict: bool | None = None
    seed: int = 0
    limit: int | None = Field(None, ge=1)
    ray: RaySettings = RaySettings()

    def judge(self) -> Judge:
        """The judge of these settings. Raises InputError naming what is missing or wrong."""
        if self.model is None:
            raise InputError("--model is missing")
        engine = self.engine.model_copy(update={"model": self.model})
        return judge_of(engine, self.prompt, self.stop_after_verdict, self.mode)

    def sampling(self) -> SamplingSettings:
        if self.generation is not None:
            return self.generation
        return SamplingSettings(temperature=0, top_p=1) if self.votes == 1 else SamplingSettings()

    def fingerprint_of(self, benchmark: Benchmark, judge: Judge, orders: str) -> Fingerprint:
        """What makes votes comparable; a folder with others in it is refused."""
        covered: dict[str, Any] = {
            "seed": self.seed,
            "votes": self.votes,
            "limit": self.limit,
            "orders": orders,
            "early_stop": self.early_stop,
            "generation": self.sampling().model_dump(mode="json"),
            "judge": judge.identity(),
        }
        if benchmark.kind == "best_of":
            names = (BEST_OF_PROMPT, SHIPPED_PROMPTS["pointwise"])
            covered["prompts"] = {name: load_prompt(name).hash for name in names}
        source = benchmark.source
        content = storage.content_hash(source) if storage.exists(source) else source
        return fingerprint("evaluation", covered, {source: content}, [])


def judge_all(
    command: JudgingCommand,
    work: Mapping[str, Benchmark],
    orders: Mapping[str, Mapping[str, tuple[str, ...]] | None],
    protocol: str = "both_orders",
) -> dict[str, StageResult]:
    """Judge the rows of every benchmark into its folder ({folder: benchmark}); a second call continues.

    Raises InputError when a folder holds votes made with other settings.
    """
    judge = command.judge()
    for folder, benchmark in work.items():
        claim(folder, command.fingerprint_of(benchmark, judge, protocol))
    results: dict[str, StageResult] = {}
    with connected(command.ray):
        pools = PoolManager(run_id="judge", may_grow=command.ray.may_grow)
        try:
            for folder, benchmark in work.items():
                with Lease(folder) as lease:
                    runner = Runner(pools, lease.fence)
                    served = replace(judge, engine=engine_for(folder, judge.engine, pools))
                    results[folder] = _judge(command, served, runner, folder, benchmark, orders.get(folder))
        finally:
            pools.close()
    return results


def _judge(
    command: JudgingCommand,
    judge: Judge,
    runner: Runner,
    folder: str,
    benchmark: Benchmark,
    orders: Mapping[str, tuple[str, ...]] | None,
) -> StageResult:
    sampling, votes, seed = command.sampling(), command.votes, command.seed
    if benchmark.kind == "best_of":
        return best_of.judge_rows(runner, benchmark, folder, judge, sampling, votes, seed)
    if judge.mode == "pointwise":
        units = pairwise_scoring_units(benchmark.name, benchmark.rows)
        program = judge.scoring_program(sampling, votes, seed)
        return score_rows(runner, units=units, directory=folder, program=program, engine=judge.engine)
    return judge_rows(
        runner,
        units=units_of(benchmark.name, benchmark.rows, orders),
        directory=folder,
        program=judge.program(sampling, votes, seed, command.early_stop),
        engine=judge.engine,
    )


def serve_judge(command: JudgingCommand, http: HttpSettings) -> None:
    """Serve the judge over HTTP until it is told to stop. Raises InputError and RunError as `judge_all` does."""
    from ray_app.http_service import run_service

    judge = command.judge()
    sampling, votes, seed = command.sampling(), command.votes, command.seed
    program = (
        judge.scoring_program(sampling, votes, seed)
        if judge.mode == "pointwise"
        else judge.program(sampling, votes, seed, command.early_stop)
    )
    with connected(command.ray):
        pools = PoolManager(run_id="serve", may_grow=command.ray.may_grow)
        try:
            pool = pools.get("judge", judge.engine).pool
            run_service(pool, judge, Work(program, "serve", None, pool.model), http)
        finally:
            pools.close()


def make_folder(uri: str) -> None:
    """Make an output folder. Raises InputError where none can be made, before any work is done."""
    try:
        fs, path = storage.filesystem(uri)
        fs.makedirs(path, exist_ok=True)
    except (OSError, ValueError, ImportError) as fault:
        raise InputError(f"{uri} cannot be written: {(str(fault).splitlines() or [repr(fault)])[0]}") from fault


def claim(folder: str, wanted: Fingerprint) -> None:
    """Mark a folder with the settings of its votes. Raises InputError naming the setting that differs."""
    uri = storage.join(folder, FINGERPRINT)
    if not storage.exists(uri):
        storage.write_json_atomic(uri, wanted.model_dump(mode="json"))
        return
    old = Fingerprint.model_validate(storage.read_json(uri))
    if wanted.settings["judge.dtype"] == "auto":  # begun before there was auto, it goes on as it was (`engine_for`)
        wanted = wanted.model_copy(update={"settings": wanted.settings | {"judge.dtype": old.settings["judge.dtype"]}})
    check(old, wanted, folder)


def engine_for(folder: str, engine: EngineSettings, pools: PoolManager) -> EngineSettings:
    """The engine for a claimed folder: where `dtype` is `auto`, all its votes are drawn in the format of the first."""
    if engine.kind != "vllm" or engine.dtype != "auto":
        return engine
    uri = storage.join(folder, FINGERPRINT)
    claimed = storage.read_json(uri)
    named = claimed["settings"]["judge.dtype"]
    own = claimed.get(DTYPE) if named == "auto" else named
    if own is None:
        own = pools.resolved(engine, "engine").dtype
        storage.write_json_atomic(uri, {**claimed, DTYPE: own})
    log.info("dtype auto: %s is judged in %s", folder, own)
    return engine.decided(own)


def save_verdicts(
    benchmark: Benchmark,
    folder: str,
    target: str,
    votes: int,
    mode: Mode,
    *,
    orders: Mapping[str, tuple[str, ...]] | None = None,
    explanations: bool = False,
) -> int:
    """The verdict file of every id: judged ones in the file's order, then those the loader quarantined."""
    lost = {fault["id"]: fault["reason"] for fault in benchmark.quarantined}
    ids = [row.id for row in benchmark.rows] + [fault.id for fault in benchmark.faulty]
    if mode == "pointwise":
        means, faults = scores_of(folder, benchmark.rows)
        records = score_records(ids, means, faults | lost)
    else:
        tallies, faults = results_of(folder, benchmark.rows, orders)
        records = verdict_records(ids, tallies, votes, faults | lost, orders)
    if explanations:
        records = Explanations(folder, mode, sources_of(benchmark.rows)).added(records)
    return write_verdicts(target, records)
