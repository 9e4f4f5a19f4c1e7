"""What the tests that kill and stop runs share: the moments to do it at, and what must be as it was afterwards."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import psutil
from loop_runs import Loop, scripted

STAGES = ("instructions", "pairs", "judgments", "train_set", "training", "evaluation")
# What a stage is held by while it is killed: one row that is not answered.
ROW, OTHER_ROW, EVALUATION_ROW = (
    "a cat who is afraid of snow",
    "a small bakery next to a lighthouse",
    "pure water freeze",
)
CLASSIFY, MODIFY = "Classify the following instruction", "Here is an instruction"
JUDGE = {"p": [0.9, 0.5, 0.0], "unparsed": 0.1}


def killable_settings(model: str) -> dict[str, Any]:
    """Shards that close early, one stage after the other, and real training of `model`."""
    return {
        "iterations": 1,
        "limit": 24,
        "instructions": {"classify": True},
        "shards": {"max_rows": 8, "max_seconds": 2},
        "generator": scripted(),
        "judge": scripted(model, **JUDGE),
        "judging": {"samples": 4},
        "train": {"checkpoint_every": 1, "max_steps": 3, "keep_candidates": False},
        "pools": {"side_by_side": "never"},
    }


class Killing:
    """Kills one run again and again; after every attempt, what was committed or closed must be as it was."""

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self.closed: dict[str, Any] = {}

    def at(self, reached: Callable[[], bool], *options: str) -> None:
        assert self.loop.killed_when(reached, options=options).code == -signal.SIGKILL
        self.compare()

    def interrupted(self, reached: Callable[[], bool], *options: str) -> None:
        ended = self.loop.killed_when(reached, signal.SIGINT, options)
        assert ended.code == 130
        assert "the same command continues" in ended.errors
        assert "Traceback" not in ended.errors
        self.compare()

    def compare(self) -> None:
        now = {**self.loop.files(), **self.loop.files("**/stage.json")}
        changed = [path for path, file in self.closed.items() if now.get(path) != file]
        assert not changed
        self.closed = {path: file for path, file in now.items() if self._is_final(path)}

    def _is_final(self, path: str) -> bool:
        """Whether a later attempt must leave the file alone: all but what is derived in one quick, repeatable go."""
        again = ("candidates/", "train_set/", "units/")
        derived = any(part in path for part in again)
        return not derived or (self.loop.run / path).parent.joinpath("stage.json").exists()

    def committed(self, directory: str) -> bool:
        return (self.loop.run / directory / "stage.json").exists()

    def inside(self, directory: str, pattern: str = "shard-*.parquet") -> Callable[[], bool]:
        """Something is there, and the stage is not committed."""
        return lambda: any((self.loop.run / directory).glob(pattern)) and not self.committed(directory)


def trained_until(step: int, folder: Path) -> list[str]:
    """Options with which training waits in this step, where the stand-in of wandb is found."""
    (folder / f"hold-{step}").touch()
    return ["--train.tracking.to", '["wandb"]', "--train.tracking.project", str(folder)]


def whole_and_once(loop: Loop) -> None:
    """Every row that an undisturbed run has is there, once."""
    judged_whole_and_once(loop)
    lines = [json.loads(line) for line in (loop.run / "metrics.jsonl").read_text().splitlines()]
    assert {line["stage"] for line in lines} == set(STAGES)
    assert len(lines) == 7
    left = list(loop.run.rglob(".tmp-*"))  # of a kill inside one write of the run's own files; nothing lists it
    assert {path.parent for path in left} <= {loop.run}
    assert not (loop.run / "lease.json").exists()


def judged_whole_and_once(loop: Loop) -> None:
    """Every instruction has its pair, and every order of it its judgments."""
    pairs = loop.rows("pairs")
    assert Counter(row["instruction_id"] for row in loop.rows("instructions")) == Counter(
        row["instruction_id"] for row in pairs
    )
    samples = defaultdict(list)
    for row in loop.rows("iter_01/judgments"):
        samples[row["pair_id"], row["order"]].append(row)
    assert set(samples) == {(row["pair_id"], order) for row in pairs for order in ("chosen_first", "rejected_first")}
    for rows in samples.values():
        rows.sort(key=lambda row: row["sample"])
        assert [row["sample"] for row in rows] == list(range(len(rows)))
        # Until correct: nothing is drawn after the first correct one, and nothing is given up early.
        assert [row["correct"] for row in rows[:-1]] == [False] * (len(rows) - 1)
        assert rows[-1]["correct"] or len(rows) == 4
        assert [row["kept"] for row in rows] == [row["correct"] for row in rows]


def left_of(session: int, limit_s: float = 60, but: Collection[str] = ()) -> list[str]:
    """Processes of a command's session that outlived it, `but` those whose titles begin so; a moment is given to those
    that are ending.
    """
    deadline = time.monotonic() + limit_s
    while True:
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(ProcessLookupError, psutil.Error):
                if os.getsid(process.pid) == session and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(" ".join(process.cmdline()).strip()[:120])
        found = [title for title in found if not title.startswith(tuple(but))]
        if not found or time.monotonic() > deadline:
            return found
        time.sleep(0.1)
