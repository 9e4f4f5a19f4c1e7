"""Side (b): ray_app's judging, from the Parquet of the pairs table to the Parquet of the judgments table.

Engines are started and warm; Ray Data, the client, the shard writer and the last shard are inside the clock.
"""

from __future__ import annotations

import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from judge_bench.held import held, left
from judge_bench.work import Spec, write_pairs
from ray_app.base.schema import JUDGMENTS
from ray_app.engine.manager import PoolManager
from ray_app.engine.pool import EnginePool
from ray_app.engine.settings import EngineSettings
from ray_app.generation.programs.judge import JudgeProgram, Mode
from ray_app.generation.programs.rows import pair_units
from ray_app.generation.runner import Job, Runner
from ray_app.run.storage import list_files, read_parquet
from ray_app.system.cluster import connected
from ray_app.system.cluster_settings import RaySettings

# The product's own local Ray; its object store holds what Ray Data has in flight of 100,000 pairs.
RAY = RaySettings(dashboard=False, object_store_gib=4)


def run(spec: Spec, modes: tuple[Mode, ...] = ("all",)) -> list[dict[str, Any]]:
    """One record a mode and repeat: seconds, tokens, kept, and the tail. The last tells of the engines' start, and what
    was held of the machine before, while they served, and after they had closed beside a living Ray.
    """
    settings = spec.engine().resolved(1 if spec.device == "cuda" else 0)
    records: list[dict[str, Any]] = []
    machine: dict[str, Any] = {}
    with connected(RAY), tempfile.TemporaryDirectory() as folder:
        machine["before"] = held()
        manager = PoolManager("bench", may_grow=False)
        try:
            serving = manager.get("judge", settings)
            pool = serving.pool
            print(f"app: {len(pool.actors)} engine(s) after {serving.seconds:.0f} s", flush=True)
            machine |= {"start_s": round(serving.seconds, 1), "start_parts": pool.parts, "serving": held()}
            warm, few = write_pairs(spec, -1, Path(folder)), min(spec.pairs, 8 * spec.replicas)
            judge(manager, settings, warm, few, spec.program("until_correct"), Path(folder) / "warm-up")
            for mode in modes:
                for repeat in range(spec.repeats):
                    pairs = write_pairs(spec, repeat, Path(folder))
                    out = Path(folder) / f"{mode}-{repeat}"
                    with Timeline(pool) as timeline:
                        record = judge(manager, settings, pairs, spec.pairs, spec.program(mode, repeat), out)
                    seats = spec.max_num_seqs * spec.replicas
                    records.append({"mode": mode, **record, **timeline.tail(2 * spec.pairs, seats)})
        finally:
            manager.close()
            machine["closed"] = left()
            print(f"app: closed, {machine['closed']}", flush=True)
    records[-1]["machine"] = machine
    return records


def judge(
    manager: PoolManager, settings: EngineSettings, pairs: Path, count: int, program: JudgeProgram, out: Path
) -> dict[str, Any]:
    """The judgments stage over the first `count` pairs; its cost is read back from its shards."""
    runner = Runner(manager)
    source = runner.dataset(str(pairs))
    if count < sum(read_parquet(f, columns=["pair_id"]).num_rows for f in list_files(str(pairs), "shard-*.parquet")):
        source = source.limit(count)
    start = time.monotonic()
    job = Job(
        stage="judgments",
        directory=str(out),
        schema=JUDGMENTS,
        key=("pair_id", "order"),
        source=source.flat_map(lambda row: list(pair_units(row))),
        total=2 * count,
        program=program,
        engine=settings,
        role="judge",
    )
    result = runner.run(job)
    seconds = time.monotonic() - start
    return {
        "seconds": seconds,
        "requests": result.rows_out,
        "prompt_tokens": result.prompt_tokens,
        "completion_tokens": result.completion_tokens,
        "quarantined": result.quarantined,
        "samples": samples_of(out),
    }


def samples_of(directory: Path) -> list[tuple[str, str, int, bool, int]]:
    """(pair_id, order, sample, correct, completion tokens) of every judgment."""
    columns = ["pair_id", "order", "sample", "correct", "completion_tokens"]
    rows = []
    for file in list_files(str(directory), "shard-*.parquet"):
        table = read_parquet(file, columns=columns)
        rows += list(zip(*(table.column(name).to_pylist() for name in columns), strict=True))
    return rows


class Timeline:
    """Units and tokens finished over time, asked of the engines once a second (each time takes theirs on two cores)."""

    def __init__(self, pool: EnginePool) -> None:
        self.pool, self.points = pool, list[tuple[float, int, int]]()
        self.stop = threading.Event()

    def __enter__(self) -> Timeline:
        self.before = self._now()
        self.thread = threading.Thread(target=self._watch, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        self.thread.join()
        self._point()

    def _watch(self) -> None:
        while not self.stop.wait(1):
            self._point()

    def _now(self) -> tuple[float, int, int]:
        stats = self.pool.stats()
        return (
            time.monotonic(),
            sum(s.get("units", 0) for s in stats),
            sum(s.get("completion_tokens", 0) for s in stats),
        )

    def _point(self) -> None:
        now = self._now()
        self.points.append((now[0] - self.before[0], now[1] - self.before[1], now[2] - self.before[2]))

    def tail(self, units: int, seats: int) -> dict[str, Any]:
        """The tail begins when fewer units are unfinished than the engines could batch."""
        full = next((p for p in self.points if p[1] > units - seats), self.points[-1])
        end = next((p for p in self.points if p[1] >= units), self.points[-1])
        shown = self.points[:: 1 + len(self.points) // 60]
        return {
            "timeline": [(round(seconds, 1), count, tokens) for seconds, count, tokens in shown],
            "first_unit_s": next((p[0] for p in self.points if p[1]), None),
            "full_s": full[0],
            "full_tokens": full[2],
            "tail_s": end[0] - full[0],
            "tail_tokens": end[2] - full[2],
        }
