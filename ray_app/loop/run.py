"""A run from its start to its tables: what is left of it is done and committed, step by step."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray_app.engine.manager import PoolManager
from ray_app.errors import RunError
from ray_app.findings.page import REPORT
from ray_app.findings.run_tables import RunTables
from ray_app.generation.runner import Runner, StageResult
from ray_app.judging.judge import warn_of_reasoning
from ray_app.loop.card_files import write_cards
from ray_app.loop.checks import (
    check_benchmarks,
    check_interrupted,
    check_models,
    check_room,
    check_training,
    tried_training,
    warn_of_late_benchmarks,
)
from ray_app.loop.config import IterateSettings
from ray_app.loop.dtypes import decided_dtype, with_older_dtypes
from ray_app.loop.reporting import look_at, measure, stop_by_standing_alarms, try_report
from ray_app.loop.run_record import describe
from ray_app.loop.run_table import show, show_alarms
from ray_app.loop.stages.context import Context
from ray_app.loop.stages.inputs import Inputs
from ray_app.loop.stages.training import STAGE as TRAINING
from ray_app.loop.step import Step, begin_ahead, run_step
from ray_app.loop.steps import steps_of
from ray_app.run import metrics_log, storage
from ray_app.run.folder import RunFolder, StageRecord, commit, now, read_record, read_run, write_run
from ray_app.run.lease import Lease
from ray_app.run.location import resolved_runs
from ray_app.run.resume import pending
from ray_app.system import job_line, precision
from ray_app.system.background import OneByOne
from ray_app.system.cluster import connected
from ray_app.system.device_time import DeviceClock
from ray_app.system.precision import Dtype
from ray_app.system.stopping import stopped
from ray_app.train.standby import Standby

log = logging.getLogger(__name__)


def run(settings: IterateSettings) -> int:
    """Run what is left of the loop and print the table."""
    runs = resolved_runs(settings.runs, Path.cwd())
    settings = settings.model_copy(update={"runs": runs})
    check_models(settings)
    folder = RunFolder(settings.run_uri)
    earlier = read_run(folder.uri)
    settings = with_older_dtypes(settings, earlier)
    inputs = Inputs(settings)
    steps = steps_of(settings, folder, inputs)
    todo = [steps[i] for i in pending([(str(s), read_record(s.directory), s.fingerprint) for s in steps])]
    log.info("run %s: %d of %d stages are done", folder.uri, len(steps) - len(todo), len(steps))
    check_interrupted(todo)
    if todo:
        check_training(settings)
        check_benchmarks(settings, inputs, todo)
        if settings.judging.stop_after_verdict and not settings.stop_after_verdict:
            log.info("judging.stop_after_verdict is off: a judge reasons before it answers")
        warn_of_reasoning(settings.judges, settings.stop_after_verdict)
        late = warn_of_late_benchmarks(settings, inputs, folder)
        with Lease(folder.uri) as lease:
            write_run(folder.uri, {**describe(settings, steps, earlier.get("dtype")), "late_overlap": late})
            try:
                stop_by_standing_alarms(settings, folder.uri)
                with connected(settings.ray):
                    run_steps(settings, inputs, folder, steps, todo, lease, earlier.get("dtype"))
            except RunError:  # what is done can be read, and why it stopped
                lease.fence.check()  # a driver that has lost its run writes nothing more
                tell(settings, folder, steps, anew=True)
                raise
    tell(settings, folder, steps, anew=bool(todo))
    return 0


def tell(settings: IterateSettings, folder: RunFolder, steps: list[Step], anew: bool) -> None:
    """Write what a run says of itself and print its tables; the report only where there is something new to say."""
    write_cards(settings, folder, range(1, settings.iterations + 1))
    show(metrics_log.rebuild(folder.uri, [s.directory for s in steps]))
    report = storage.join(folder.uri, REPORT)
    line = try_report(folder.uri, settings) if anew or not storage.exists(report) else f"report: {report}"
    show_alarms(RunTables(folder.uri).alarms())
    print(f"run folder: {folder.uri}")
    print(line)


def run_steps(
    settings: IterateSettings,
    inputs: Inputs,
    folder: RunFolder,
    steps: list[Step],
    todo: list[Step],
    lease: Lease,
    own: Dtype | None = None,
) -> None:
    """Run and commit the steps that are left, in order; the engines close however it ends. `own`: the format that the
    run was begun in, where it has decided one.
    """
    pools, standbys, saying = pools_of(settings), dict[str, Standby](), OneByOne()
    try:
        check_room(settings, todo, pools)
        pools.dtype = dtype = decided_dtype(settings, own, pools.may_grow)
        if settings.iterations and not settings.train.use_gpu:
            precision.warn_if_slow("train.dtype", settings.train.dtype, "cpu")
        if dtype is not None:  # what could not begin binds no later command to its format
            write_run(folder.uri, {**read_run(folder.uri), "dtype": dtype})
            decided = dtype
            settings = settings.each_training(lambda train: train.decided(decided))
            check_training(settings)
        if any(step.kind == TRAINING for step in todo):
            settings = tried_training(settings, inputs)
            check_training(settings)
        pools.clock = DeviceClock(devices_of(settings, pools))
        context = Context(settings, folder, Runner(pools, lease.fence, settings.shards), inputs, standbys=standbys)
        measure(settings, folder.uri)
        do_steps(context, steps, todo, lease, saying)
    finally:
        if not stopped():  # nothing is to be written once the run is another driver's to take
            saying.end()
        for standby in standbys.values():
            standby.close()
        pools.close()


def do_steps(context: Context, steps: list[Step], todo: list[Step], lease: Lease, saying: OneByOne) -> None:
    """Do what is left, in order. Figures, and what is said of them, are made while the next step begins."""
    done: set[str] = set()
    for step in todo:
        if step.directory not in done:
            done |= do_step(context, step, [s for s in todo if s.directory not in done], steps, lease, saying)


def do_step(
    context: Context, step: Step, left: list[Step], steps: list[Step], lease: Lease, saying: OneByOne
) -> set[str]:
    """Do the next step of what is `left`, and those that are done with it; returns their folders."""
    settings, folder, pools = context.settings, context.folder, context.runner.pools
    log.info("%s: started", step)
    job_line.tell(f"{step}: started")
    started, since = time.monotonic(), now()
    begin_ahead(step, left, context)
    ended = run_step(step, left, context)
    lease.fence.check()
    made = {one.directory for one in ended.steps}
    to_come = [s for s in left if s.directory not in made]
    waits = settings.alarms.on_alarm == "stop" or not to_come  # else the next step need not wait for figures
    results = None if ended.owed and not waits else ended.results()
    pools.count_busy()
    spent = Spent(since, time.monotonic() - started, pools.clock.take())
    if results is not None:
        commit_all(ended.steps, results, spent, lease)

    def finish() -> None:
        if results is None:
            commit_all(ended.steps, ended.results(), spent, lease)
        say(settings, folder, steps, list(ended.steps), to_come)

    saying.do(finish)
    if waits:
        saying.wait()
    return made


@dataclass(frozen=True)
class Spent:
    """When steps began, the seconds until their engines were done with them, and what the devices did meanwhile."""

    since: str
    seconds: float
    device_time: dict[str, Any]


def commit_all(steps: Sequence[Step], results: Sequence[StageResult], spent: Spent, lease: Lease) -> None:
    """Commit steps. What is done together has one account of the devices' time, with the first of it."""
    lease.fence.check()
    for number, (step, result) in enumerate(zip(steps, results, strict=True)):
        result = result if number else result.with_extra({"device_time": spent.device_time})
        commit(step.directory, record_of(step, result, spent.since))
        lost = f", {sum(result.quarantined.values())} lost" if result.quarantined else ""
        log.info("%s: done in %.0f s, %d rows%s", step, spent.seconds, result.rows_out, lost)


def say(settings: IterateSettings, folder: RunFolder, steps: list[Step], made: list[Step], to_come: list[Step]) -> None:
    """Bring up to date what a run says of itself: table, cards, alarms. Raises RunError as `look_at` does."""
    metrics_log.rebuild(folder.uri, [s.directory for s in steps])
    write_cards(settings, folder, [made[0].iteration] if made[0].iteration else [])
    look_at(settings, folder.uri, made, to_come)


def pools_of(settings: IterateSettings) -> PoolManager:
    """The manager of a run's engines, none of which lives yet."""
    sleeps = settings.pools.sleep == "auto" and settings.iterations > 0
    seed, trained = settings.judge.model, f"{settings.run_uri}/"
    return PoolManager(
        settings.name,
        settings.ray.may_grow,
        sleeps,
        seed=settings.judge,
        kin=lambda model: model == seed or model.startswith(trained),
    )


def devices_of(settings: IterateSettings, pools: PoolManager) -> float:
    """The GPUs that a run takes at most, by its settings; 1 where it takes none: the machine."""
    asked = [settings.generator] if settings.generates else []
    engines = [pools.resolved(engine) for engine in (*asked, *settings.judges.values())]
    taken = [engine.gpus_per_replica * engine.replicas for engine in engines]
    trainings = settings.trainings.values() if settings.iterations else ()
    trainers = [train.workers for train in trainings if train.use_gpu]
    beside = 0.0
    if len(engines) > 1 and min(taken[:2]) > 0 and engines[0] != engines[1]:
        beside = sum(taken[:2]) if pools.side_by_side(engines[0], engines[1])[0] else 0.0
    return max(*taken, *trainers, beside) or 1


def record_of(step: Step, result: StageResult, started: str) -> StageRecord:
    """stage.json of one step."""
    return StageRecord(
        stage=step.stage,
        iteration=step.iteration,
        fingerprint=step.fingerprint,
        rows_in=result.rows_in,
        rows_out=result.rows_out,
        quarantined=result.quarantined,
        prompt_tokens=result.prompt_tokens,
        completion_tokens=result.completion_tokens,
        seconds=round(result.seconds, 3),
        started=started,
        finished=now(),
        extra=result.extra,
    )
