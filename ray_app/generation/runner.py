"""Runs one program over one table: resume by row, engine pool, Ray Data stream, shard writer.

The only place that joins them, so that every generating stage resumes, reports and fails alike.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pyarrow as pa
import ray
import ray.data

from ray_app.engine.actor import ENGINE_ERROR, TIMEOUT
from ray_app.engine.manager import PoolManager
from ray_app.engine.pool import EnginePool
from ray_app.engine.settings import EngineSettings
from ray_app.engine.stream import HelperLost, run_program
from ray_app.errors import RunError
from ray_app.run.lease import Fence
from ray_app.run.reopen import reopen, supersede
from ray_app.run.shard_settings import ShardSettings
from ray_app.run.shards import closed_names, row_counts
from ray_app.run.storage import list_files
from ray_app.run.tally import Tally, tally
from ray_app.run.units import Units
from ray_app.run.writer_actor import Table, start_writer
from ray_app.system.stopping import at_most, stopped

log = logging.getLogger(__name__)
T = TypeVar("T")
# Faults that may be no row's own, and are asked again by the next attempt: a replica may have erred, or have been too
# slow for its samples, or hung. What has ended engines alone is left.
RETRIED = frozenset({ENGINE_ERROR, TIMEOUT})
DEFAULT_SHARDS = ShardSettings()
STOP_CLOSE_S, CLOSE_S = 3.0, 60.0  # for the open shard, where a run is stopped, and where a stage fails
DRIVES = 3  # of a stage whose helpers die
TOKENS = ("prompt_tokens", "completion_tokens")
WEIGHTS = ("weights", "weights_seconds", "dtype", "first_answer")  # what a stage says of how it came by its weights


@dataclass(frozen=True)
class StageResult:
    """What a stage reports to its stage.json. Seconds are the wall time of this attempt, engine start included."""

    rows_in: int = 0
    rows_out: int = 0
    quarantined: dict[str, int] = field(default_factory=dict)
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0
    extra: dict[str, Any] = field(default_factory=dict)

    def with_extra(self, more: dict[str, Any]) -> StageResult:
        return dataclasses.replace(self, extra={**self.extra, **more})

    def reading(self, more: int) -> StageResult:
        """The same, with `more` rows read."""
        return dataclasses.replace(self, rows_in=self.rows_in + more)


@dataclass(frozen=True)
class Job:
    """The work of one generating stage: `program` for each of the `total` rows of `source`, into `directory`."""

    stage: str
    directory: str
    schema: pa.Schema
    key: tuple[str, ...]
    source: ray.data.Dataset
    total: int
    program: Any
    engine: EngineSettings
    role: str
    iteration: int | None = None
    units: str = ""  # the folder of Parquet files that `source` reads, where it is one
    where: tuple[str, str] | None = None  # (column, value) of the folder's rows that are this job's; None: all are,
    # and all faults; else the faults of its stage

    def done(self) -> Units:
        """Its units that closed shards hold."""
        return Units.of(closed_names(self.directory, self.key, self.where, self.stage if self.where else None))

    def tally(self) -> Tally:
        """What its closed shards hold in all."""
        sums = TOKENS if set(TOKENS) <= set(self.schema.names) else ()
        return tally(self.directory, self.key, sums, self.where, self.stage if self.where else None)

    def resolved(self, fence: Fence | None) -> Tally:
        """The same, once no unit that has rows is quarantined. Raises RunError where another driver holds the run: its
        quarantine is not this one's to change.
        """
        found = self.tally()
        if not found.superseded:
            return found
        if fence:
            fence.check()
        supersede(self.directory, found.superseded, self.stage if self.where else None)
        log.warning(
            "%s: %d unit(s) have rows, and were quarantined by a driver that held this run before: their rows stand",
            *(self.label, len(found.superseded)),
        )
        return self.tally()

    @property
    def label(self) -> str:
        return self.stage if self.iteration is None else f"iteration {self.iteration}: {self.stage}"


def table_rows(directory: str) -> int:
    """Rows of the closed shards of a table, from their footers."""
    return row_counts(directory)[0]


class Runner:
    """Runs programs for one run; `fence` raises when another driver has taken the run over."""

    def __init__(self, pools: PoolManager, fence: Fence | None = None, shards: ShardSettings = DEFAULT_SHARDS) -> None:
        self.pools, self.fence, self.shards = pools, fence, shards

    def dataset(self, directory: str) -> ray.data.Dataset:
        """The closed shards of a table as a Ray dataset."""
        files = list_files(directory, "shard-*.parquet")
        if not files:
            return ray.data.from_items([])
        # Ray's newer reader starts four actors to read footers: over two seconds of every stage, for a few small files.
        ray.data.DataContext.get_current().use_datasource_v2 = False
        return ray.data.read_parquet(files)

    def run(self, job: Job) -> StageResult:
        """Do what no closed shard of the job's folder holds yet. Counts and tokens are those of all attempts; they are
        read back from the shards.
        """
        started = time.monotonic()
        self.reopen(job)
        done = job.done()
        spent: Counter[str] = Counter()
        extra: dict[str, Any] = {"resumed_units": len(done)}
        if len(done) < job.total:
            serving = self.pools.get(job.role, job.engine)
            driven(job.label, lambda: self._drive(job, serving.pool, spent))
            extra |= serving.described() | serving.first_answer()
        return result_of(job, dict(spent), time.monotonic() - started, extra, self.fence)

    def _drive(self, job: Job, pool: EnginePool, spent: Counter[str]) -> None:
        done = job.done()
        if len(done) >= job.total:
            return
        with self.writing(job, spent=[spent]) as writer:
            counters = run_program(
                without(job.source, job.key, done),
                pool,
                job.program,
                writer,
                stage=job.stage,
                label=job.label,
                total=job.total - len(done),
                iteration=job.iteration,
            )
        spent.update(counters)

    def reopen(self, job: Job) -> None:
        """Rows that failed or were too slow in an earlier attempt are asked again: engines may have been at fault."""
        if not list_files(job.directory, "quarantine-*.parquet"):
            return
        if self.fence:
            self.fence.check()
        again = reopen(job.directory, RETRIED, job.stage if job.where else None)
        if again:
            log.info("%s: %d row(s) that failed or were too slow before are asked again", job.label, again)

    @contextlib.contextmanager
    def writing(self, *jobs: Job, spent: Sequence[Counter[str]] = ()) -> Iterator[Any]:
        """The shard writer of jobs, a lane each; an actor that ends with the block: Ray Data would hold on to its
        handle, and an idle process of Ray wakes a hundred times a second.

        Where the block fails, what is answered is kept; `spent` is told what it took, a counter for each job.
        """
        tables = [Table(job.directory, job.schema) for job in jobs]
        writer = start_writer(tables, self.fence, self.shards.max_rows, self.shards.max_seconds)
        try:
            yield writer
        except BaseException:
            with contextlib.suppress(Exception):  # where Ray itself is gone, what the block raised says why
                limit = at_most(STOP_CLOSE_S) if stopped() else CLOSE_S
                found = ray.get(writer.finish.remote(), timeout=limit)
                for one, counters in zip(spent, found, strict=False):
                    one.update(counters)
            raise
        finally:
            with contextlib.suppress(Exception):
                ray.kill(writer)


def driven(label: str, drive: Callable[[], T]) -> T:
    """What `drive` returns. Where a helper of the stage dies, it is called again while the engines live: it is to go on
    from the closed shards. Raises what it raises, HelperLost after DRIVES times.
    """
    for left in reversed(range(DRIVES)):
        try:
            return drive()
        except HelperLost as fault:
            if not left or stopped():
                raise
            log.warning("%s; %s goes on from its closed shards", fault, label)
    raise AssertionError("the last drive returns or raises")


def result_of(
    job: Job, counters: dict[str, float], seconds: float, extra: dict[str, Any], fence: Fence | None = None
) -> StageResult:
    """What a job whose shards are closed has to say; counts and tokens are those of all attempts.

    Raises RunError where closed shards and quarantine hold other units than were asked for: no such stage is committed.
    """
    found = job.resolved(fence)
    if fault := found.fault(job.total):
        raise RunError(f"{job.label}: {fault} ({job.directory})")
    cut = int(counters.get("cut_in_reasoning", 0))
    if cut:
        log.warning(
            "%s: %d texts were cut inside their <think>, at a verdict the model was weighing, and count as unparsed: "
            "turn stop_after_verdict off for a reasoning model",
            *(job.label, cut),
        )
        extra = {**extra, "cut_in_reasoning": cut}
    # Tables without token columns (pairs) tell what this attempt spent, quarantined rows included.
    prompt, completion = (int((found.sums or counters).get(name, 0)) for name in TOKENS)
    return StageResult(job.total, found.rows, found.quarantined, prompt, completion, seconds, extra)


def without(source: ray.data.Dataset, key: tuple[str, ...], done: Units) -> ray.data.Dataset:
    """The rows of `source` whose units are not done yet."""
    if not len(done):
        return source
    reference = ray.put(done)

    def left(batch: pa.Table) -> pa.Table:
        known: Units = ray.get(reference)  # one copy a node: its hashes stay in the object store
        return known.left_of(batch, key)

    return source.map_batches(left, batch_size=None, batch_format="pyarrow", zero_copy_batch=True)
