"""What each fault costs a stage, on the real model: rows asked again, tokens made again, seconds, engine starts.

    PYTHONPATH=. python benchmarks/faults.py --model .cache/models/smollm2-135m-instruct --output faults.json

Two vLLM engines on this machine's processors judge the demo's test pairs in both orders. A stage is run undisturbed
(twice), then once with each fault: an engine killed, an engine stopped (SIGSTOP; its actor, which is the same process
here, is missed after 60 s of silence), a row that ends every engine, the stage's client killed, its writer killed.
Every asking of a row is noted by the program itself, so what is asked again is counted, not computed. The stage is
judging; generating and evaluating go through the same client and writer.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import ray
import ray.data
from faulting import CLIENT, POISON, ROOT, WRITER, computing, newest_child, poisoned_environment
from report import processor

from ray_app.base.prompts import load_prompt
from ray_app.base.schema import JUDGMENTS
from ray_app.benchmarks import load_benchmark
from ray_app.engine.base import Engine, Sampling, UnitResult
from ray_app.engine.manager import PoolManager
from ray_app.engine.settings import EngineSettings
from ray_app.generation.programs.judge import JudgeProgram
from ray_app.generation.programs.rows import pairwise_units
from ray_app.generation.runner import Job, Runner
from ray_app.run.shard_settings import ShardSettings
from ray_app.run.shards import row_counts, shard_files
from ray_app.run.storage import read_parquet

KEY = ("pair_id", "order")
STALL_S = 20.0
SHARDS = ShardSettings(max_rows=16, max_seconds=30)
Fault = Callable[[Any], None]


class Noted:
    """Asks like `program`, and notes every asking in a file before it begins."""

    def __init__(self, program: JudgeProgram, notes: Path) -> None:
        self.program, self.notes = program, str(notes)

    def unit_of(self, row: dict[str, Any]) -> str:
        """The unit's name."""
        return self.program.unit_of(row)

    async def __call__(self, engine: Engine, row: dict[str, Any]) -> UnitResult:
        """What the program makes of a row."""
        note = self.unit_of(row) + "\n"
        file = os.open(self.notes, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        try:
            os.write(file, note.encode())  # in one piece: several processes write
        finally:
            os.close(file)
        return await self.program(engine, row)


@dataclass(frozen=True)
class Stage:
    """The work, the same for every fault."""

    runner: Runner
    engine: EngineSettings
    units: list[dict[str, Any]]
    program: JudgeProgram

    def run(self, folder: Path, fault: Fault | None) -> dict[str, Any]:
        """Run it, with a fault once an engine has answered a few rows; what it cost."""
        folder.mkdir(parents=True)
        blocks = [pa.Table.from_pylist(self.units[i::4]) for i in range(4)]
        self.runner.pools.get("judge", self.engine)
        (pool,) = self.runner.pools.pools
        # One that the last fault has ended may not be built yet: that is no cost of this one.
        ray.get([actor.revive.remote(pool.model) for actor in pool.actors])
        before = processes(pool)
        job = Job(
            "judgments", str(folder / "table"), JUDGMENTS, KEY, ray.data.from_arrow(blocks), len(self.units),
            Noted(self.program, folder / "notes"), self.engine, "judge",
        )  # fmt: skip
        answered = sum(told.get("units", 0) for told in pool.stats())
        faults: list[BaseException] = []
        thread = threading.Thread(target=self._disturb, args=(pool, answered, fault, faults), daemon=True)
        started = time.monotonic()
        if fault:
            thread.start()
        self.runner.run(job)
        seconds = time.monotonic() - started
        if fault:
            thread.join()
        if faults:
            raise RuntimeError("the fault could not be made") from faults[0]
        return {"seconds": round(seconds, 1), **counted(folder), "engines_anew": len(processes(pool) - before)}

    def _disturb(self, pool: Any, answered: int, fault: Fault, faults: list[BaseException]) -> None:
        try:
            while sum(told.get("units", 0) for told in pool.stats()) < answered + len(self.units) // 4:
                time.sleep(0.1)
            fault(pool)
        except BaseException as error:  # the main thread tells of it
            faults.append(error)


def processes(pool: Any) -> set[int]:
    """The processes of a pool's engines."""
    return {int(told["pid"]) for told in ray.get([actor.ready.remote() for actor in pool.actors])}


def counted(folder: Path) -> dict[str, Any]:
    """Of a stage that has ended: rows lost, rows asked again, and what these come to in tokens."""
    asked = Counter((folder / "notes").read_text(encoding="utf-8").splitlines())
    _, lost = row_counts(str(folder / "table"))
    tokens: Counter[str] = Counter()
    for file in shard_files(str(folder / "table")):
        for row in read_parquet(file).to_pylist():
            tokens[":".join(row[name] for name in KEY)] += row["prompt_tokens"] + row["completion_tokens"]
    again = {unit: times - 1 for unit, times in asked.items() if times > 1}
    return {
        "rows": len(asked),
        "lost": lost,
        "rows_asked_again": len(again),
        "askings_again": sum(again.values()),
        "tokens": sum(tokens.values()),
        "tokens_again_at_most": sum(tokens[unit] * times for unit, times in again.items()),
    }


def signalled(how: signal.Signals) -> Fault:
    """A fault: one engine's process gets a signal."""
    return lambda pool: os.kill(computing(pool.actors[0]), how)


def helper_killed(title: str) -> Fault:
    """A fault: a helper of the stage, by how Ray titles it, is killed."""
    return lambda pool: newest_child(title).kill()


FAULTS: dict[str, Fault] = {
    "an engine is killed": signalled(signal.SIGKILL),
    "an engine's process says nothing any more (SIGSTOP)": signalled(signal.SIGSTOP),
    "the client of the stage is killed": helper_killed(CLIENT),
    "the shard writer is killed": helper_killed(WRITER),
}


def main() -> None:
    """Measure, and write the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--output", required=True)
    parser.add_argument("--pairs", type=int, default=64)
    parser.add_argument("--max_tokens", type=int, default=48)
    given = parser.parse_args()
    rows = load_benchmark(f"demo={ROOT / 'configs/demo/test.jsonl'}", given.pairs).rows
    units = [{**unit, "pair_id": unit["id"]} for row in rows for unit in pairwise_units("demo", row)]
    program = JudgeProgram(
        load_prompt("judge_pairwise_small"), Sampling(temperature=0, top_p=1, max_tokens=given.max_tokens), "all", 1,
        "smollm2", 1, 1, "judgments", key=KEY,
    )  # fmt: skip
    engine = EngineSettings(
        model=given.model, device="cpu", max_model_len=1024, max_num_seqs=8, cpu_threads=1, replicas=2,
        stall_timeout_s=STALL_S,
    )  # fmt: skip
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    ray.init(address="local", num_cpus=4, object_store_memory=200 * 2**20, include_dashboard=False, log_to_driver=False)
    ray.data.DataContext.get_current().enable_progress_bars = False
    found = measured(Path(tempfile.mkdtemp()), engine, units, program, given.model)
    usual = statistics.median(told["seconds"] for name, told in found.items() if name.startswith("undisturbed"))
    for name, told in found.items():
        if not name.startswith("undisturbed") and not told["rows_asked_again"]:
            raise RuntimeError(f"{name}: nothing was asked again, so it was not seen")
    for told in found.values():
        told["seconds_more"] = round(told["seconds"] - usual, 1)
    told = {
        "processor": processor(),
        "cores": os.cpu_count(),
        "engines": 2,
        "stall_timeout_s": STALL_S,
        "shard_rows": SHARDS.max_rows,
        "faults": found,
    }
    Path(given.output).write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")


def measured(
    folder: Path, engine: EngineSettings, units: list[dict[str, Any]], program: JudgeProgram, model: str
) -> dict[str, Any]:
    """{fault: what it cost}."""
    found = {}
    with contextlib.closing(PoolManager("faults", may_grow=False)) as manager:
        stage = Stage(Runner(manager, shards=SHARDS), engine, units, program)
        stage.run(folder / "warm", None)  # the engines start
        cases: dict[str, Fault | None] = {"undisturbed": None, **FAULTS, "undisturbed, again": None}
        for number, (name, fault) in enumerate(cases.items()):
            found[name] = stage.run(folder / str(number), fault)
            print(name, found[name], file=sys.stderr, flush=True)
    with contextlib.closing(PoolManager("faults", may_grow=False)) as manager:
        with_plugin = engine.model_copy(update={"env": poisoned_environment(model)})
        stage = Stage(Runner(manager, shards=SHARDS), with_plugin, units, program)
        found["undisturbed, with the plugin"] = stage.run(folder / "plugin", None)
        bad = [*units[:5], {**units[5], "instruction": f"{units[5]['instruction']}{POISON}"}, *units[6:]]
        name = "a row ends every engine"
        found[name] = Stage(stage.runner, stage.engine, bad, program).run(folder / "poison", None)
        print(name, found[name], file=sys.stderr, flush=True)
    return found


if __name__ == "__main__":
    main()
