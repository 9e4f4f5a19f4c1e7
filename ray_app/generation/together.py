"""Several tables of one engine's answers as one Ray Data graph: the evaluation sets of an iteration.

    units of set 1 ─┐                          ┌─→ shards of set 1
    units of set 2 ─┼─→ one client, one pool ──┼─→ shards of set 2
    …              ─┘                          └─→ …

What a graph costs (a client, a writer, Ray Data's own start and end: seconds, whatever there is to ask) is paid once,
and the engines' batches do not run dry between one set and the next. Each set keeps its own shards and its own resume.
"""

from __future__ import annotations

import pickle
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import ray
import ray.data

from ray_app.engine.base import Work
from ray_app.engine.client import LANE, ROW
from ray_app.engine.manager import Serving
from ray_app.engine.stream import drain, lanes_stage, settle
from ray_app.generation.runner import Job, Runner, StageResult, driven, result_of
from ray_app.run.storage import list_files, read_parquet
from ray_app.run.units import Units
from ray_app.system.progress import Part, Progress


@dataclass(frozen=True)
class Left:
    """A job that is not done, and the units that earlier attempts have done of it."""

    number: int  # among the jobs that were given
    job: Job
    done: Units

    @property
    def total(self) -> int:
        return self.job.total - len(self.done)


def run_together(runner: Runner, jobs: Sequence[Job]) -> list[StageResult]:
    """Do what no closed shard of the jobs holds yet; the result of each job, as `Runner.run` tells it.

    The jobs ask the same engines, and name the folders of their units. Their seconds add up (`shares`).
    """
    for job in jobs:
        runner.reopen(job)
    if len(left := _left(jobs)) == 1:  # alone it has as much of a stream for itself, and is driven by the runner
        return _results(runner, jobs, left, [runner.run(left[0].job)])
    return driven(jobs[0].label, lambda: _drive(runner, jobs)) if jobs else []


def _drive(runner: Runner, jobs: Sequence[Job]) -> list[StageResult]:
    left = _left(jobs)
    return _results(runner, jobs, left, _run(runner, left) if left else [])


def _left(jobs: Sequence[Job]) -> list[Left]:
    done = [job.done() for job in jobs]
    return [Left(i, job, done[i]) for i, job in enumerate(jobs) if len(done[i]) < job.total]


def _results(
    runner: Runner, jobs: Sequence[Job], left: Sequence[Left], made: Sequence[StageResult]
) -> list[StageResult]:
    """`made` of what was left; of the other jobs what earlier attempts have closed, which is all."""
    results = {one.number: result for one, result in zip(left, made, strict=True)}
    return [
        results.get(i) or result_of(job, {}, 0.0, {"resumed_units": job.total}, runner.fence)
        for i, job in enumerate(jobs)
    ]


def _run(runner: Runner, left: Sequence[Left]) -> list[StageResult]:
    started, jobs = time.monotonic(), [one.job for one in left]
    first, label = jobs[0], jobs[0].label
    with runner.writing(*jobs) as writer:
        serving = runner.pools.get(first.role, first.engine)
        pool, total = serving.pool, sum(one.total for one in left)
        lanes = [Work(job.program, job.stage, job.iteration, pool.model) for job in jobs]
        stream = lanes_stage(packed(left), pool, lanes, writer)
        with Progress(Part(f"{label} ({len(jobs)} tables)", total, writer, tuple(pool.actors), pool.run_id)):
            _, held = drain(stream, label)
            counters = settle(label, [one.total for one in left], held, writer)
    asking = time.monotonic() - started - serving.seconds
    told = [serving.described() | serving.first_answer()]  # its weights came for the first, and were there for others
    told += [Serving(pool, "reused").described()] * (len(left) - 1)
    waited = [serving.seconds] + [0.0] * (len(left) - 1)
    seconds = shares([one.total for one in left], asking)
    return [
        result_of(
            one.job,
            counts,
            spent + start,
            {"resumed_units": len(one.done), "tables_at_once": len(left), **extra},
            runner.fence,
        )
        for one, counts, spent, start, extra in zip(left, counters, seconds, waited, told, strict=True)
    ]


def shares(units: Sequence[int], seconds: float) -> list[float]:
    """Seconds of each table: its share by units, so that they add up. Pure."""
    return [seconds * many / sum(units) for many in units]


def packed(left: Sequence[Left]) -> ray.data.Dataset:
    """What is left of all jobs, in their order: a lane's number and a pickled row each, because rows of different
    tables have different columns.
    """
    files = [
        {LANE: lane, "file": file}
        for lane, one in enumerate(left)
        for file in list_files(one.job.units, "shard-*.parquet")
    ]
    keys = [one.job.key for one in left]
    known = ray.put([one.done for one in left])

    def rows_of(batch: dict[str, Any]) -> pa.Table:
        done = ray.get(known)
        rows = [
            {LANE: int(lane), ROW: pickle.dumps(row)}
            for lane, file in zip(batch[LANE], batch["file"], strict=True)
            for row in done[lane].left_of(read_parquet(str(file)), keys[lane]).to_pylist()
        ]
        return pa.Table.from_pylist(rows, schema=pa.schema([(LANE, pa.int32()), (ROW, pa.binary())]))

    listed = ray.data.from_items(files, override_num_blocks=len(files))
    return listed.map_batches(rows_of, batch_size=None, batch_format="numpy")
