"""From a Ray dataset to an engine pool: a light `map_batches` stage around one client.

    run_program(dataset, pool, program, writer, …)      a whole stage: rows in, durable shards out
    program_stage(dataset, pool, program, writer, …)    the same as a lazy dataset, whose rows a next stage can take
    lanes_stage(dataset, pool, lanes, writer)           rows of several tables at once (`generation/together.py`)

`drain` runs such a dataset to its end, `settle` closes the shards that came of it.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import ray
import ray.data
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from ray_app.engine.actor import ENGINE_ERROR
from ray_app.engine.base import Program, Work
from ray_app.engine.client import ClientSettings, Held, PoolClient, cause_of
from ray_app.engine.pool import EnginePool
from ray_app.engine.supervisor import Limits
from ray_app.errors import RunError
from ray_app.system.progress import Part, Progress

# What Ray says where a process of the stage, no engine, has died: its client, its writer, a task of Ray Data.
# Ray's own OutOfMemoryError is the name of a worker that was ended for memory; torch has one of that name too.
_DEATHS = (
    r"(?:ActorDied|ActorUnavailable|RayActor|WorkerCrashed|OwnerDied|NodeDied|ObjectLost|ObjectReconstructionFailed"
    r"|ObjectFetchTimedOut|(?<!torch\.)(?<!cuda\.)OutOfMemory)Error"
)
_OURS = re.compile(r"^ray_app\.errors\.\w+: (.+)$", re.MULTILINE)
STREAM_ROWS, STREAM_BLOCKS = 64, 16  # where a next stage takes the rows: at most so many a block, about so many blocks


class HelperLost(RunError):
    """A process died that a stage consists of besides its engines. What closed shards hold is done; the rest can be
    asked again at once.
    """


def program_stage(
    dataset: ray.data.Dataset,
    pool: EnginePool,
    program: Program,
    writer: Any,
    *,
    stage: str,
    iteration: int | None = None,
    emit: pa.Schema | None = None,
    total: int = STREAM_ROWS * STREAM_BLOCKS,
) -> ray.data.Dataset:
    """`program` over `dataset`, lazily. Units go to `writer`; what comes out is small counts, or with `emit` the rows.

    With `emit` a next stage takes the rows, once they are in closed shards, while this one still runs: both stand in
    one Ray Data graph. A block is handed on whole, so `total` rows are cut into several. Units that failed while the
    engine had answered none are then with the writer (`unanswered`).
    """
    if emit is not None:
        dataset = dataset.repartition(target_num_rows_per_block=max(1, min(STREAM_ROWS, total // STREAM_BLOCKS)))
    return _client_stage(dataset, pool, [Work(program, stage, iteration, pool.model)], writer, emit)


def lanes_stage(dataset: ray.data.Dataset, pool: EnginePool, lanes: Sequence[Work], writer: Any) -> ray.data.Dataset:
    """The same for rows of several tables, which come packed, each with its lane: its work, and its table's number with
    the `writer` (`run.writer_actor.start_writer`).
    """
    return _client_stage(dataset, pool, lanes, writer, packed=True)


def _client_stage(
    dataset: ray.data.Dataset,
    pool: EnginePool,
    lanes: Sequence[Work],
    writer: Any,
    emit: pa.Schema | None = None,
    packed: bool = False,
) -> ray.data.Dataset:
    in_flight = pool.settings.in_flight * len(pool.actors)
    blocks = min(256, max(8, in_flight // 32))
    settings = ClientSettings(in_flight, pool.settings.rows_per_call, Limits.of(pool.settings), emit, packed)
    return dataset.map_batches(
        PoolClient,
        fn_constructor_args=(pool.actors, lanes, writer, settings),
        batch_size=None,
        batch_format="pyarrow",
        zero_copy_batch=True,
        # Where the driver is, as the writer: a node with engines may go, and its client must not go with it. It takes
        # no CPU, for the node of a driver may offer none.
        num_cpus=0,
        scheduling_strategy=NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False),
        compute=ray.data.ActorPoolStrategy(size=1, max_concurrent_calls_per_actor=blocks),
        # A client that died may have written part of its batch: the stream is to end, and to be driven again from the
        # closed shards. One that died with nothing to do is started again, or Ray Data would wait for it for ever.
        max_restarts=-1,
        max_task_retries=0,
    )


def run_program(
    dataset: ray.data.Dataset,
    pool: EnginePool,
    program: Program,
    writer: Any,
    *,
    stage: str,
    label: str,
    total: int,
    iteration: int | None = None,
) -> dict[str, float]:
    """Stream `dataset` through `program`; returns the counters of this attempt once all rows are durable.

    Raises RunError with the cause in one line when an engine or the writer fails for good.
    """
    stream = program_stage(dataset, pool, program, writer, stage=stage, iteration=iteration)
    with Progress(Part(label, total, writer, tuple(pool.actors), pool.run_id)):
        units, held = drain(stream, label)
        return settle(label, [units], held, writer)[0]


def settle(label: str, units: Sequence[int], held: list[Held], writer: Any) -> list[dict[str, float]]:
    """Close the shards of a stage whose stream has ended, and return the counters of each lane; `units` are what each
    has asked. Raises RunError when nothing of a lane succeeded; otherwise the units that were held failed on their own,
    and are quarantined.
    """
    try:
        return _settled(label, units, held, writer)
    except (ray.exceptions.RayActorError, ray.exceptions.OutOfMemoryError, ray.exceptions.ObjectLostError) as fault:
        raise HelperLost(f"{label}: the shard writer died: {root_cause(fault)}") from fault


def _settled(label: str, units: Sequence[int], held: list[Held], writer: Any) -> list[dict[str, float]]:
    answered: list[bool] = ray.get(writer.answered.remote())
    for lane, asked in enumerate(units):
        own = [unit for number, unit in held if number == lane]
        unheard = any(unit.quarantine[0]["reason"] == ENGINE_ERROR for unit in own)
        # A refusal may be a row's own fault, but not where no row of the lane was ever answered.
        if own and len(own) == asked and (unheard or not answered[lane]):
            raise RunError(f"{label}: no request succeeded: {cause_of(own[-1])}")
    if held:
        ray.get(writer.add.remote(held))
    found: list[dict[str, float]] = ray.get(writer.finish.remote())
    return found


def drain(stream: ray.data.Dataset, label: str) -> tuple[int, list[Held]]:
    """Run a `program_stage` to its end: (units, those that failed in the engine with no success after them).

    Raises RunError with the cause in one line.
    """
    units, held = 0, []
    try:
        for counts in stream.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
            units += sum(counts.column("units").to_pylist())
            held += [unit for part in counts.column("held").to_pylist() for unit in pickle.loads(part)]
    except Exception as fault:
        kind = HelperLost if helper_died(fault) else RunError
        raise kind(f"{label}: {root_cause(fault)}") from fault
    return units, held


def helper_died(fault: BaseException) -> bool:
    """Whether a process of the stage has died, and nothing else went wrong."""
    text = f"{type(fault).__name__}: {fault}"
    return not _OURS.search(text) and bool(re.search(_DEATHS, text))


def root_cause(fault: BaseException) -> str:
    """What went wrong first, in one line. Ray hands a worker's exception on as text, wrapped in its own."""
    text = str(fault)
    if ours := _OURS.search(text):
        return ours[1].strip()
    raised = [line for line in re.findall(r"^[\w.]+(?:Error|Exception|Died|Exit).*: .+$", text, re.MULTILINE)]
    lines = raised or [line for line in text.splitlines() if line.strip()]
    return (lines[0] if lines else type(fault).__name__).strip()
