"""kill -9 of the driver at random moments, from a fixed list of seeds: the run that is killed again and again ends with
the tables of one that nobody disturbs, and after each kill no process is left.
"""

from __future__ import annotations

import json
import random
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from killing import EVALUATION_ROW, JUDGE, Killing, killable_settings, left_of, whole_and_once
from loop_runs import Loop, held, merged

SEEDS = range(312, 333)
# The folders of the stages, in their order, and how many of ten moments are to be in each.
STAGES = {
    "instructions": 1.5,
    "pairs": 2.2,
    "iter_00/evaluation/validation": 1.0,
    "iter_01/judgments": 2.2,
    "iter_01/train_set": 0.9,
    "iter_01/training": 0.8,
    "iter_01/evaluation/validation": 1.4,
}
ORDER = list(STAGES)
TABLES = [folder for folder in ORDER if folder != "iter_01/training"]
LATEST_S = 12.0  # in a stage: one that waits for a row that is held has no more to tell
GONE_S = 30.0  # for what was killed with the driver, or notices by itself that it is gone
# What holds no work, no place and no GPU: Ray's agents try for a minute to tell a head that is gone of the death, and a
# worker that was about to start, or has just started, looks for its raylet for half a minute.
IDLE, IDLE_GONE_S = ("ray::DashboardAgent", "ray::RuntimeEnvAgent", "ray::IDLE", sys.executable), 120.0


@dataclass(frozen=True)
class Moment:
    """After so many signs of life in a stage (a file in the run folder, a line of the log), and a little later."""

    stage: str
    signs: int
    delay_s: float
    streams: bool  # pairs into judgments: both are killed at once, and go on one after the other

    @property
    def options(self) -> list[str]:
        return ["--pools.side_by_side", "auto" if self.streams else "never"]

    @property
    def turn(self) -> tuple[int, bool, int]:
        """A run goes through its stages in order, and what streams commits both of its stages together. The moment with
        the fewest signs first: it is the surest to come while a short stage is at work.
        """
        return ORDER.index(self.stage), not self.streams, self.signs


def drawn(seed: int) -> Moment:
    draw = random.Random(seed)
    (stage,) = draw.choices(ORDER, list(STAGES.values()))
    streams = stage == "pairs" and draw.random() < 0.5
    return Moment(stage, draw.randrange(16), draw.uniform(0, 1.5), streams)


class Signs:
    """Signs of life of a command since it was first seen in a stage."""

    def __init__(self, loop: Loop, moment: Moment) -> None:
        self.loop, self.moment = loop, moment
        self.log = loop.folder / f"err-{len(loop.processes)}"  # of the command that is started next
        self.seen: set[Any] | None = None
        self.until = self.latest = float("inf")

    def reached(self) -> bool:
        """Whether the moment has come."""
        now = time.monotonic()
        if self.seen is None:
            before = ORDER[: ORDER.index(self.moment.stage)]
            if self.log.exists() and all((self.loop.run / folder / "stage.json").exists() for folder in before):
                self.seen, self.latest = self._signs(), now + LATEST_S
        elif self.until == float("inf") and (len(self._signs() - self.seen) >= self.moment.signs or now > self.latest):
            self.until = now + self.moment.delay_s
        return now > self.until

    def _signs(self) -> set[Any]:
        files = {str(file) for file in self.loop.run.rglob("*") if not file.name.startswith((".tmp-", "lease"))}
        return files | set(enumerate(self.log.read_text().splitlines()))


@pytest.fixture
def loops(tmp_path: Path, shallow: str) -> Iterator[list[Loop]]:
    """One that is left in peace, and one that is not."""
    settings = killable_settings(shallow)
    for role, script in (("generator", {}), ("judge", JUDGE)):
        settings = merged(settings, {role: {"script": {**script, "delay_s": 0.1}}})
    made = []
    for name in ("undisturbed", "killed"):
        (tmp_path / name).mkdir()
        made.append(Loop(tmp_path / name, settings))
    yield made
    for loop in made:
        loop.stop()


def test_the_moments_are_the_same_in_every_run_and_lie_in_every_stage() -> None:
    moments = [drawn(seed) for seed in SEEDS]
    assert moments == [drawn(seed) for seed in SEEDS]
    assert len(set(moments)) == len(moments) >= 20
    assert {moment.stage for moment in moments} == set(STAGES)
    assert {moment.streams for moment in moments if moment.stage == "pairs"} == {True, False}


@pytest.mark.matrix
@pytest.mark.timeout(1800)
def test_a_run_that_is_killed_at_random_moments_has_the_tables_of_an_undisturbed_one(loops: list[Loop]) -> None:
    undisturbed, killed = loops
    undisturbed.succeeds()
    killing = Killing(killed)
    for moment in sorted(map(drawn, SEEDS), key=lambda moment: moment.turn):
        # What holds the last stage keeps the run from its end; of the first set of gold rows it would hold more.
        holding = held("judge", EVALUATION_ROW) if killing.committed("iter_00/evaluation/validation") else []
        ended = killed.killed_when(Signs(killed, moment).reached, signal.SIGKILL, [*moment.options, *holding])
        assert ended.code == -signal.SIGKILL
        assert left_of(killed.processes[-1].pid, GONE_S, but=IDLE) == [], moment
        killing.compare()
    killed.succeeds()
    killing.compare()
    whole_and_once(killed)
    for folder in TABLES:
        assert table(killed, folder) == table(undisturbed, folder), folder
        assert counts(killed, folder) == counts(undisturbed, folder), folder
    for process in killed.processes:
        assert left_of(process.pid, IDLE_GONE_S) == []


def table(loop: Loop, folder: str) -> list[str]:
    """The rows of a table, sorted. A judge is named by its folder, which lies in that of the run."""
    return sorted(str({**row, "judge": None}) for row in loop.rows(folder))


def counts(loop: Loop, folder: str) -> Any:
    """What a stage says that it was asked and has closed."""
    record = json.loads((loop.run / folder / "stage.json").read_text())
    return record["rows_in"], record["rows_out"], record["quarantined"]
