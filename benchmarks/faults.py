"""What each fault costs a stage, on the real model: rows asked again, tokens made again, seconds, engine starts.

    PYTHONPATH=. python benchmarks/faults.py --model .cache/models/smollm2-135m-instruct --output faults.json
    … --stage pairs --output faults-pairs.json

Two vLLM engines on this machine's processors judge the demo's test pairs in both orders (an evaluation asks the
same), or make pairs of its instructions, three requests a row. A stage is run undisturbed (twice), then once with each
fault: an engine killed, an engine stopped (SIGSTOP; its actor, which is the same process here, is missed after 60 s of
silence), a row that ends every engine, the stage's client killed, its writer killed. Every asking of a row is noted by
the program itself, and its tokens when it is answered: what is asked again is counted, not computed.
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
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import ray
import ray.data
from faulting import CLIENT, POISON, ROOT, WRITER, computing, newest_child, poisoned_environment
from report import processor

from ray_app.base.prompts import load_prompt
from ray_app.base.schema import INSTRUCTIONS, JUDGMENTS, PAIRS
from ray_app.benchmarks import load_benchmark
from ray_app.engine.actor import ENGINE_ERROR, TIMEOUT
from ray_app.engine.asking import KILLED
from ray_app.engine.base import Engine, Program, Sampling, UnitResult
from ray_app.engine.manager import PoolManager
from ray_app.engine.settings import EngineSettings
from ray_app.generation.pair_gate import Gate
from ray_app.generation.programs.judge import JudgeProgram
from ray_app.generation.programs.pair import PairProgram
from ray_app.generation.programs.rows import pairwise_units
from ray_app.generation.runner import Job, Runner
from ray_app.run.shard_settings import ShardSettings
from ray_app.run.shards import row_counts

UNDISTURBED, PLUGIN = ("undisturbed", "undisturbed, again"), "undisturbed, with the plugin"
CALM = (*UNDISTURBED, PLUGIN)
POISONED = "a row ends every engine"
FAULTY = {KILLED, TIMEOUT, ENGINE_ERROR}  # why rows are lost to faults: not a gate's reasons, nor a refusal
STALL_S = 20.0
SHARDS = ShardSettings(max_rows=16, max_seconds=30)
Fault = Callable[[Any], None]


@dataclass(frozen=True)
class Work:
    """What a stage asks, and its table."""

    stage: str
    schema: pa.Schema
    key: tuple[str, ...]
    role: str
    program: Program
    units: list[dict[str, Any]]
    text: str  # the column that a poisoned row is poisoned in


class Noted:
    """Asks like `program`, and notes every asking in a file before it begins, and its tokens when it has ended."""

    def __init__(self, program: Program, notes: Path) -> None:
        self.program, self.notes = program, str(notes)

    def unit_of(self, row: dict[str, Any]) -> str:
        """The unit's name."""
        return self.program.unit_of(row)

    async def __call__(self, engine: Engine, row: dict[str, Any]) -> UnitResult:
        """What the program makes of a row."""
        self._note(f"asked {self.unit_of(row)}")
        made = await self.program(engine, row)
        tokens = made.counters["prompt_tokens"] + made.counters["completion_tokens"]
        self._note(f"{tokens:.0f} {self.unit_of(row)}")
        return made

    def _note(self, line: str) -> None:
        file = os.open(self.notes, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        try:
            os.write(file, f"{line}\n".encode())  # in one piece: several processes write
        finally:
            os.close(file)


@dataclass(frozen=True)
class Stage:
    """The work, the same for every fault."""

    runner: Runner
    engine: EngineSettings
    work: Work

    def run(self, folder: Path, fault: Fault | None) -> dict[str, Any]:
        """Run it, with a fault once an engine has answered a few rows; what it cost."""
        folder.mkdir(parents=True)
        work = self.work
        blocks = [pa.Table.from_pylist(work.units[i::4]) for i in range(4)]
        self.runner.pools.get(work.role, self.engine)
        (pool,) = self.runner.pools.pools
        # One that the last fault has ended may not be built yet: that is no cost of this one.
        ray.get([actor.revive.remote(pool.model) for actor in pool.actors])
        before = processes(pool)
        job = Job(
            work.stage, str(folder / "table"), work.schema, work.key, ray.data.from_arrow(blocks), len(work.units),
            Noted(work.program, folder / "notes"), self.engine, work.role,
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
            while sum(told.get("units", 0) for told in pool.stats()) < answered + len(self.work.units) // 4:
                time.sleep(0.1)
            fault(pool)
        except BaseException as error:  # the main thread tells of it
            faults.append(error)


def processes(pool: Any) -> set[int]:
    """The processes of a pool's engines."""
    return {int(told["pid"]) for told in ray.get([actor.ready.remote() for actor in pool.actors])}


def counted(folder: Path) -> dict[str, Any]:
    """Of a stage that has ended: rows lost, rows asked again, and what these come to in tokens."""
    asked: Counter[str] = Counter()
    tokens: dict[str, int] = {}  # of a unit's last answer: one that was cut short made fewer
    for line in (folder / "notes").read_text(encoding="utf-8").splitlines():
        what, unit = line.split(" ", 1)
        if what == "asked":
            asked[unit] += 1
        else:
            tokens[unit] = int(what)
    _, quarantined = row_counts(str(folder / "table"))
    again = {unit: times - 1 for unit, times in asked.items() if times > 1}
    return {
        "rows": len(asked),
        "lost": {reason: count for reason, count in quarantined.items() if reason in FAULTY},
        "rows_asked_again": len(again),
        "askings_again": sum(again.values()),
        "tokens": sum(tokens.values()),
        "tokens_again_at_most": sum(tokens.get(unit, 0) * times for unit, times in again.items()),
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


def judging(pairs: int, max_tokens: int) -> Work:
    """The demo's test pairs, in both orders."""
    rows = load_benchmark(f"demo={ROOT / 'configs/demo/test.jsonl'}", pairs).rows
    units = [{**unit, "pair_id": unit["id"]} for row in rows for unit in pairwise_units("demo", row)]
    key = ("pair_id", "order")
    program = JudgeProgram(
        load_prompt("judge_pairwise_small"), Sampling(temperature=0, top_p=1, max_tokens=max_tokens), "all", 1,
        "smollm2", 1, 1, "judgments", key=key,
    )  # fmt: skip
    return Work("judgments", JUDGMENTS, key, "judge", program, units, "instruction")


def generating(pairs: int, max_tokens: int) -> Work:
    """Pairs of the demo's instructions, by the paper's strategy."""
    lines = (ROOT / "configs/demo/instructions.jsonl").read_text(encoding="utf-8").splitlines()[:pairs]
    given = {**dict.fromkeys(INSTRUCTIONS.names), "split": "train"}
    units = [{**given, "instruction_id": told["id"], "text": told["instruction"]} for told in map(json.loads, lines)]
    sampling = Sampling(temperature=0, top_p=1, max_tokens=max_tokens)
    prompts = (load_prompt(name) for name in ("modify_instruction", "modify_and_respond", "worse_response"))
    program = PairProgram("modified_instruction", False, *prompts, sampling, sampling, Gate(), "smollm2", 1, 1)
    return Work("pairs", PAIRS, ("instruction_id",), "generator", program, units, "text")


WORKS: dict[str, Callable[[int, int], Work]] = {"judgments": judging, "pairs": generating}


def main() -> None:
    """Measure, and write the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--output", required=True)
    parser.add_argument("--stage", choices=WORKS, default="judgments")
    parser.add_argument("--pairs", type=int, default=64, help="or instructions, in pairs")
    parser.add_argument("--max_tokens", type=int, default=48)
    given = parser.parse_args()
    work = WORKS[given.stage](given.pairs, given.max_tokens)
    engine = EngineSettings(
        model=given.model, device="cpu", max_model_len=1024, max_num_seqs=8, cpu_threads=1, replicas=2,
        stall_timeout_s=STALL_S,
    )  # fmt: skip
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    ray.init(address="local", num_cpus=4, object_store_memory=200 * 2**20, include_dashboard=False, log_to_driver=False)
    ray.data.DataContext.get_current().enable_progress_bars = False
    found = measured(Path(tempfile.mkdtemp()), engine, work, given.model)
    for name, told in found.items():
        if name in CALM and (told["rows_asked_again"] or told["lost"]):
            raise RuntimeError(f"{name}: {told}")
        if name not in CALM and not told["rows_asked_again"]:
            raise RuntimeError(f"{name}: nothing was asked again, so it was not seen")
    usual = statistics.median(found[name]["seconds"] for name in UNDISTURBED)
    for name, told in found.items():
        beside = found[PLUGIN]["seconds"] if name == POISONED else usual
        told["seconds_more"] = round(told["seconds"] - beside, 1)
    told = {
        "stage": work.stage,
        "processor": processor(),
        "cores": os.cpu_count(),
        "engines": 2,
        "stall_timeout_s": STALL_S,
        "shard_rows": SHARDS.max_rows,
        "faults": found,
    }
    Path(given.output).write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")


def measured(folder: Path, engine: EngineSettings, work: Work, model: str) -> dict[str, Any]:
    """{fault: what it cost}."""
    found = {}
    with contextlib.closing(PoolManager("faults", may_grow=False)) as manager:
        stage = Stage(Runner(manager, shards=SHARDS), engine, work)
        stage.run(folder / "warm", None)  # the engines start
        cases: dict[str, Fault | None] = {UNDISTURBED[0]: None, **FAULTS, UNDISTURBED[1]: None}
        for number, (name, fault) in enumerate(cases.items()):
            found[name] = stage.run(folder / str(number), fault)
            print(name, found[name], file=sys.stderr, flush=True)
    with contextlib.closing(PoolManager("faults", may_grow=False)) as manager:
        with_plugin = engine.model_copy(update={"env": poisoned_environment(model)})
        stage = Stage(Runner(manager, shards=SHARDS), with_plugin, work)
        found[PLUGIN] = stage.run(folder / "plugin", None)
        units = list(work.units)
        units[5] = {**units[5], work.text: f"{units[5][work.text]}{POISON}"}
        found[POISONED] = Stage(stage.runner, stage.engine, replace(work, units=units)).run(folder / "poison", None)
        print(POISONED, found[POISONED], file=sys.stderr, flush=True)
    return found


if __name__ == "__main__":
    main()
