"""What `evaluate` and `judge` share: the judge of their settings, and judging a benchmark's rows into a folder."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NoReturn

from ray_app.base.parsers import LAST
from ray_app.benchmarks import Benchmark
from ray_app.command.settings import EvaluateSettings, JudgingCommand
from ray_app.engine.base import Work
from ray_app.engine.manager import PoolManager
from ray_app.engine.settings import EngineSettings
from ray_app.errors import InputError, first_line
from ray_app.generation.runner import Runner, StageResult
from ray_app.judging.explanations import Explanations
from ray_app.judging.gold_set import judge_set
from ray_app.judging.judge import Judge, judge_of
from ray_app.judging.protocol import STAGE, Answers, Voting
from ray_app.judging.registry import protocol_for, protocol_of
from ray_app.judging.sharing import sources_of
from ray_app.judging.spending import Timing, kept, timed
from ray_app.metrics import write_verdicts
from ray_app.metrics.outcome import Protocol as Orders
from ray_app.run import storage
from ray_app.run.fingerprint import Fingerprint, check, fingerprint
from ray_app.run.lease import Lease
from ray_app.serving.settings import HttpSettings
from ray_app.system.cluster import connected
from ray_app.system.stopping import say_at_end

FINGERPRINT = "fingerprint.json"
DTYPE = "dtype"  # in it, beside the fingerprint: the format of the votes, where the setting is auto
log = logging.getLogger(__name__)


def load_judge(command: JudgingCommand) -> Judge:
    """The judge of these settings: reads its card and prompts, and warns where it may reason. Once a command.

    Raises InputError naming what is missing or wrong.
    """
    if command.model is None:
        raise InputError("--model is missing")
    engine = command.engine.model_copy(update={"model": command.model})
    return judge_of(engine, command.prompt, command.stop_after_verdict, command.mode)


def voting_of(command: JudgingCommand, orders: Orders = "both_orders") -> Voting:
    """How its judge is asked, and its verdicts are read."""
    parser = command.parser if isinstance(command, EvaluateSettings) else LAST
    return Voting(command.sampling, command.votes, command.seed, command.early_stop, orders, parser=parser)


def fingerprint_of(command: JudgingCommand, benchmark: Benchmark, judge: Judge, orders: Orders) -> Fingerprint:
    """What makes votes comparable; a folder with others in it is refused."""
    covered: dict[str, Any] = {
        "seed": command.seed,
        "votes": command.votes,
        "limit": command.limit,
        "orders": orders,
        "early_stop": command.early_stop,
        "generation": command.sampling.model_dump(mode="json"),
        "judge": judge.identity(),
    }
    parser = voting_of(command).parser
    if parser != LAST:  # folders from before there was a choice say nothing of it
        covered["parser"] = parser
    prompts = protocol_for(judge.mode, benchmark).prompts_covered(judge)
    if prompts:
        covered["prompts"] = prompts
    source = benchmark.source
    content = storage.content_hash(source) if storage.exists(source) else source
    return fingerprint(STAGE, covered, {source: content}, [])


@dataclass(frozen=True)
class Judged:
    """A benchmark that was judged into a folder."""

    benchmark: Benchmark
    result: StageResult
    answers: Answers
    timing: Timing


def judge_all(
    command: JudgingCommand,
    judge: Judge,
    work: Mapping[str, Benchmark],
    orders: Orders = "both_orders",
    most_errors: float = 1.0,
) -> dict[str, Judged]:
    """Judge the rows of every benchmark into its folder ({folder: benchmark}); a second call continues.

    Raises InputError when a folder holds votes made with other settings, RunError where a larger share than
    `most_errors` of a benchmark failed in the engines.
    """
    for folder, benchmark in work.items():
        claim(folder, fingerprint_of(command, benchmark, judge, orders))
    judged: dict[str, Judged] = {}
    with connected(command.ray):
        pools = PoolManager(run_id="judge", may_grow=command.ray.may_grow)
        try:
            for folder, benchmark in work.items():
                with Lease(folder) as lease:
                    served = replace(judge, engine=engine_for(folder, judge.engine, pools))
                    runner = Runner(pools, lease.fence)
                    voting = voting_of(command, orders)
                    result, answers = judge_set(runner, served, benchmark, voting, folder, most_errors=most_errors)
                    timing = kept(folder, timed(result, gpus_of(pools)))
                    judged[folder] = Judged(benchmark, result, answers, timing)
        finally:
            pools.close()
    return judged


def gpus_of(pools: PoolManager) -> float:
    """GPUs that the living engines take; shares of one count as such."""
    return sum(pool.settings.replicas * pool.settings.gpus_per_replica for pool in pools.pools)


def serve_judge(command: JudgingCommand, http: HttpSettings) -> NoReturn:
    """Serve the judge over HTTP until a signal stops it. Raises InputError and RunError as `judge_all` does."""
    from ray_app.serving.http_service import run_service

    say_at_end("the service has ended")
    judge = load_judge(command)
    program = protocol_of(judge.mode).voting_program(judge, voting_of(command))
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
        raise InputError(f"{uri} cannot be written: {first_line(fault)}") from fault


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
    judge: Judge, judged: Judged, voting: Voting, folder: str, target: str, *, explanations: bool = False
) -> int:
    """The verdict file of every id: judged ones in the file's order, then those the loader quarantined."""
    protocol = protocol_for(judge.mode, judged.benchmark)
    records = protocol.records(judged.benchmark, judged.answers, voting)
    if explanations:
        texts = Explanations(folder, protocol_of(judge.mode).part, sources_of(judged.benchmark.rows))
        records = texts.added(records)
    return write_verdicts(target, records)
