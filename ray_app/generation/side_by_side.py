"""Two generating stages as one Ray Data graph: rows that the first makes are judged while it still makes others.

    source ─→ first program ─→ first shards ─┬─→ units ─→ second program ─→ second shards
              shards of earlier attempts ────┘

A row is handed on only once its shard is closed (a full shard, an old one, or all the first stage has left). So
whenever the run is killed, the second table knows no row that the first has lost: a row in an open shard is made again,
perhaps with other texts and so under another id, and judgments of the lost one would belong to nothing. The price is
that a row waits for its shard, 30 s at most. On resume the rows of closed shards come first, less those judged already.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import ray
import ray.data

from ray_app.engine.pool import EnginePool
from ray_app.engine.stream import drain, program_stage, settle
from ray_app.generation.runner import Job, Runner, StageResult, driven, result_of, without
from ray_app.run.storage import list_files
from ray_app.run.units import Units as Done
from ray_app.system.progress import Part, Progress

log = logging.getLogger(__name__)
Units = Callable[[ray.data.Dataset], ray.data.Dataset]


def can_stream(runner: Runner, first: Job, second: Job, wanted: str) -> bool:
    """Whether the two run side by side; the log says which, and why. `wanted` is `pools.side_by_side`."""
    if len(first.done()) >= first.total:
        return False  # the first has nothing left to do
    if wanted == "never":
        fits, why = False, "pools.side_by_side is never"
    else:
        fits, why = runner.pools.side_by_side(first.engine, second.engine)
    way = "side by side" if fits else "one after the other"
    log.info("%s and %s run %s: %s", first.stage, second.label, way, why)
    return fits


def stream(
    runner: Runner, first: Job, second: Job, units: Units, total: Callable[[], int]
) -> tuple[StageResult, StageResult]:
    """Run both, and return their numbers once the shards of both are closed.

    `units` turns rows of the first table into the second's work; `second.source` holds what earlier attempts left for
    it. `second.total` is an estimate; `total()` counts when the first table is whole.
    """
    for job in (first, second):
        runner.reopen(job)
    started, spent = time.time(), (Counter[str](), Counter[str]())
    return driven(first.label, lambda: _drive(runner, first, second, units, total, started=started, spent=spent))


def _drive(
    runner: Runner,
    first: Job,
    second: Job,
    units: Units,
    total: Callable[[], int],
    *,
    started: float,
    spent: tuple[Counter[str], Counter[str]],
) -> tuple[StageResult, StageResult]:
    """From what the closed shards of both hold to their end. `spent`: counters of drives that failed."""
    second = dataclasses.replace(second, source=units(runner.dataset(first.directory)))
    done = [first.done(), second.done()]
    served = runner.pools.get_both((first.role, first.engine), (second.role, second.engine))
    pools = served[0].pool, served[1].pool
    extras = [serving.described() for serving in served]
    with contextlib.ExitStack() as open_writers:
        writers = [
            open_writers.enter_context(runner.writing(job, spent=[one]))
            for job, one in zip((first, second), spent, strict=True)
        ]
        left = first.total - len(done[0])
        judged = _graph(first, second, units, done, pools, writers)
        expected = max(0, second.total - len(done[1]))
        parts = [
            Part(job.label, many, writer, tuple(pool.actors), pool.run_id, at_most=job is second)
            for job, many, writer, pool in zip((first, second), (left, expected), writers, pools, strict=True)
        ]
        with Progress(*parts):
            drained = drain(judged, f"{first.stage} and {second.label}")
            counters = [
                settle(first.label, [left], ray.get(writers[0].unanswered.remote()), writers[0])[0],
                settle(second.label, [drained[0]], drained[1], writers[1])[0],
            ]
        for one, more in zip(spent, counters, strict=True):
            one.update(more)
        spans = [ray.get(writer.spans.remote())[0] for writer in writers]
    for serving, extra, units_done in zip(served, extras, done, strict=True):
        extra |= serving.first_answer()
        extra |= {"resumed_units": len(units_done), "side_by_side": True}
    extras[1]["overlap_seconds"] = round(max(0.0, spans[0][1] - spans[1][0]), 3) if spans[1][0] else 0.0
    ended = time.time()
    return (
        result_of(first, dict(spent[0]), max(0.0, spans[0][1] - started), extras[0], runner.fence),
        result_of(dataclasses.replace(second, total=total()), dict(spent[1]), ended - started, extras[1], runner.fence),
    )


def _graph(
    first: Job,
    second: Job,
    units: Units,
    done: list[Done],
    pools: tuple[EnginePool, EnginePool],
    writers: list[Any],
) -> ray.data.Dataset:
    """What neither table holds yet, through both programs."""
    made = program_stage(
        without(first.source, first.key, done[0]),
        pools[0],
        first.program,
        writers[0],
        stage=first.stage,
        iteration=first.iteration,
        emit=first.schema,
        total=first.total - len(done[0]),
    )
    waiting = units(made)
    if list_files(first.directory, "shard-*.parquet"):
        waiting = without(second.source, second.key, done[1]).union(waiting)
    return program_stage(waiting, pools[1], second.program, writers[1], stage=second.stage, iteration=second.iteration)
