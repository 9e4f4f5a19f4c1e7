"""What `kill -9` of the driver costs, stage by stage, in one run of the real model on processors.

    PYTHONPATH=. python benchmarks/driver_kills.py --model .cache/models/smollm2-135m-instruct --output o.json

A run of one iteration is left in peace; a second one is killed in each stage, some seconds after the stage's first
shard is closed (a training: 12 s after it was announced), and the same command goes on. Said of each kill: how many
units the next command found in closed shards, how many there are in all, and how long the command took until the stage
began. Texts that are sampled anew may differ, so the runs' tables need not: each has to hold all that it was asked.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from report import processor

from ray_app.run.shards import closed_names

ROOT = Path(__file__).resolve().parents[1]
# stage: (what its log says when it begins, its table, the key of a unit)
STAGES: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "pairs": ("pairs: started", "pairs", ("instruction_id",)),
    "judgments": ("iteration 1: judgments: started", "iter_01/judgments", ("pair_id", "order")),
    "training": ("training run-iter-01: ", "", ()),
    "evaluation": ("iteration 1: evaluation validation: started", "iter_01/evaluation/validation", ("id", "order")),
}
LATER_S = {"pairs": 3.0, "judgments": 3.0, "training": 12.0, "evaluation": 0.5}
LIMIT_S = 900.0


class Run:
    """One run folder, and the commands that were started in it."""

    def __init__(self, folder: Path, model: str, options: list[str]) -> None:
        self.folder, self.log = folder, folder / "log"
        self.process: subprocess.Popen[bytes] | None = None
        folder.mkdir()
        self.command = [
            *(sys.executable, "-m", "ray_app.iterate", "--config", "configs/smollm2-135m-cpu.yaml"),
            *("--runs", str(folder), "--name", "run", "--generator.model", model, "--judge.model", model),
            *("--iterations", "1", "--pools.side_by_side", "never", "--ray.dashboard", "false"),
            *("--shards.max_rows", "16", "--shards.max_seconds", "5", "--train.checkpoint_every", "1", *options),
        ]

    def start(self) -> subprocess.Popen[bytes]:
        """The command, its log from the beginning."""
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(self.command, cwd=ROOT, stdout=log, stderr=log, start_new_session=True)
        return self.process

    def end(self) -> None:
        """Of the last command, whatever is left."""
        if self.process:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)

    def seconds_until(self, words: str, process: subprocess.Popen[bytes]) -> float:
        """Until the log holds them. Raises RuntimeError where the command ends first, or takes too long."""
        started = time.monotonic()
        while words not in self.log.read_text(errors="replace"):
            if process.poll() is not None or time.monotonic() - started > LIMIT_S:
                raise RuntimeError(f"{words!r} was not told: {self.log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.1)
        return time.monotonic() - started

    def whole(self) -> float:
        """Seconds of the command, to its end."""
        started = time.monotonic()
        if code := self.start().wait(LIMIT_S):
            raise RuntimeError(f"exit {code}: {self.log.read_text(errors='replace')[-2000:]}")
        return time.monotonic() - started

    def closed(self, table: str, key: tuple[str, ...]) -> int:
        """Units in closed shards of a table."""
        names = {name for part in closed_names(str(self.folder / "run" / table), key) for name in part.to_pylist()}
        return len(names)

    def record(self, table: str) -> dict[str, Any]:
        """What a committed stage says of itself."""
        told: dict[str, Any] = json.loads((self.folder / "run" / table / "stage.json").read_text(encoding="utf-8"))
        return told


def killed_in(run: Run, stage: str) -> dict[str, Any]:
    """Start the command, and kill its driver while it is in a stage; what was there then."""
    words, table, key = STAGES[stage]
    process = run.start()
    to_stage = run.seconds_until(words, process)
    began = time.monotonic()
    while table and not run.closed(table, key):
        time.sleep(0.2)
        if process.poll() is not None or time.monotonic() - began > LIMIT_S:
            raise RuntimeError(f"{stage}: no shard was closed while it was at work")
    time.sleep(LATER_S[stage])
    if table and (run.folder / "run" / table / "stage.json").exists():
        raise RuntimeError(f"{stage}: it had ended before it could be killed")
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    return {"seconds_to_the_stage": round(to_stage, 1), "seconds_in_it": round(time.monotonic() - began, 1)}


def main() -> None:
    """Measure, and write the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--output", required=True)
    parser.add_argument("options", nargs="*", help="further options of iterate, behind --")
    given = parser.parse_args()
    folder, model = Path(tempfile.mkdtemp()), str(Path(given.model).resolve())
    peace, killed = (Run(folder / name, model, given.options) for name in ("peace", "killed"))
    try:
        told = measured(peace, killed)
    finally:
        for run in (peace, killed):
            run.end()
    known = {"processor": processor(), "cores": os.cpu_count()}
    Path(given.output).write_text(json.dumps(known | told, indent=1) + "\n")


def measured(peace: Run, killed: Run) -> dict[str, Any]:
    """What an undisturbed run took, and what each kill of the other one cost."""
    undisturbed = peace.whole()
    print(f"undisturbed: {undisturbed:.0f} s", file=sys.stderr, flush=True)
    found = {}
    for stage in STAGES:
        found[stage] = killed_in(killed, stage)
        print(stage, found[stage], file=sys.stderr, flush=True)
    last = killed.whole()
    for stage, told in found.items():
        _, table, key = STAGES[stage]
        if table:
            record = killed.record(table)
            told |= {"units": record["rows_in"], "units_found_closed": record["extra"]["resumed_units"]}
            if killed.closed(table, key) != record["rows_in"]:
                raise RuntimeError(f"{stage}: {record['rows_in']} units were asked, not all are closed")
    return {"undisturbed_s": round(undisturbed, 1), "last_command_s": round(last, 1), "kills": found}


if __name__ == "__main__":
    main()
