"""Ctrl-C and SIGTERM in every stage: what is open is closed, one line says that the same command continues, exit code
130 or 143, nothing of the command stays, and it does continue.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from killing import (
    CLASSIFY,
    EVALUATION_ROW,
    JUDGE,
    MODIFY,
    ROW,
    Killing,
    killable_settings,
    left_of,
    trained_until,
    whole_and_once,
)
from loop_runs import DEMO, ROOT, Loop, end_session, environment, held, scripted

from ray_app.run.lease import _locked
from ray_app.run.storage import write_json_atomic

CODES = {signal.SIGINT: (130, "interrupted"), signal.SIGTERM: (143, "stopped")}
SIGNALS = pytest.mark.parametrize("number", list(CODES), ids=lambda number: number.name)
CONTINUES = "the same command continues this run"


def said_once(number: signal.Signals, code: int, errors: str, words: str = CONTINUES) -> None:
    """The exit code and the one line of a stop."""
    wanted, verb = CODES[number]
    assert code == wanted, errors[-3000:]
    assert errors.splitlines().count(f"{verb}; {words}") == 1, errors[-3000:]
    assert "Traceback" not in errors, errors[-3000:]


class Stopping(Killing):
    """Stops one run again and again with one signal."""

    def __init__(self, loop: Loop, number: signal.Signals) -> None:
        super().__init__(loop)
        self.number = number

    def at(self, reached: Callable[[], bool], *options: str) -> None:
        process = self.loop.start(*options)
        self.loop.wait_for(process, reached)
        os.kill(process.pid, self.number)
        ended = self.loop.ended(process, 120)
        said_once(self.number, ended.code, ended.errors)
        assert left_of(process.pid) == []
        assert not (self.loop.run / "lease.json").exists()
        self.compare()

    def killed(self, reached: Callable[[], bool], *options: str) -> None:
        """`kill -9`, once."""
        super().at(reached, *options)


@pytest.mark.timeout(1200)
def test_a_run_that_is_stopped_killed_and_stopped_again_is_whole(
    loop: Callable[..., Loop], shallow: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The short form of the matrices, of stops below and of kills in test_kill.py: our own handler, no handler, and the
    stage whose library has a handler of its own.
    """
    run = loop(**killable_settings(shallow))
    stopping = Stopping(run, signal.SIGINT)
    stopping.at(stopping.inside("pairs"), *held("generator", f"{MODIFY}.*{ROW}"))
    stopping.killed(stopping.inside("iter_01/judgments"), *held("judge", ROW))
    assert not stopping.committed("iter_01/judgments")
    with monkeypatch.context() as stand_in:
        stand_in.setenv("PYTHONPATH", str(ROOT / "tests" / "stand_ins"))
        stopping.at(stopping.inside("iter_01/train_state", "**/progress-000002.json"), *trained_until(3, tmp_path))
    assert not stopping.committed("iter_01/training")
    first_step = run.files("iter_01/train_state/**/progress-000001.json")
    run.succeeds()
    stopping.compare()
    assert len(first_step) == 1  # training went on behind it
    assert run.files("iter_01/train_state/**/progress-000001.json") == first_step
    whole_and_once(run)


@SIGNALS
@pytest.mark.matrix
@pytest.mark.timeout(2400)
def test_a_stop_in_every_stage(
    loop: Callable[..., Loop], shallow: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    run = loop(**killable_settings(shallow))
    stopping = Stopping(run, number)
    log = run.folder / "err-0"
    stopping.at(lambda: log.exists() and ": 0 of 7 stages are done" in log.read_text())  # while Ray starts
    stopping.at(stopping.inside("instructions"), *held("generator", f"{CLASSIFY}.*{ROW}"))
    stopping.at(stopping.inside("pairs"), *held("generator", f"{MODIFY}.*{ROW}"))
    stopping.at(stopping.inside("iter_00/evaluation/validation"), *held("judge", EVALUATION_ROW))
    stopping.at(stopping.inside("iter_01/judgments"), *held("judge", ROW))
    with monkeypatch.context() as stand_in:
        stand_in.setenv("PYTHONPATH", str(ROOT / "tests" / "stand_ins"))
        stopping.at(stopping.inside("iter_01/train_state", "**/progress-000002.json"), *trained_until(3, tmp_path))
    stopping.at(stopping.inside("iter_01/evaluation/validation"), *held("judge", EVALUATION_ROW))
    run.succeeds()
    stopping.compare()
    whole_and_once(run)


@pytest.mark.matrix
@pytest.mark.timeout(1200)
def test_a_training_whose_run_another_driver_has_taken_over_ends_at_once(
    loop: Callable[..., Loop], shallow: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its driver stood still for too long, its workers did not: whatever they trained is the other driver's now."""
    run = loop(**killable_settings(shallow))
    file, saved = run.run / "lease.json", "iter_01/train_state/*/ray/**/*"

    def second_step_is_saved() -> bool:
        return any("state-000002" in told.read_text() for told in run.run.glob(f"{saved}snapshot.json"))

    with monkeypatch.context() as stand_in:
        stand_in.setenv("PYTHONPATH", str(ROOT / "tests" / "stand_ins"))
        process = run.start(*trained_until(3, tmp_path))
        run.wait_for(process, second_step_is_saved)
    with _locked(str(file)):
        write_json_atomic(str(file), {"owner": "other", "host": "elsewhere", "pid": 7})
    before = run.files(saved)
    ended = run.ended(process, 60)
    assert ended.code == 1, ended.errors[-3000:]
    assert ended.one_line == "failed: another driver took over this run (process 7 on elsewhere); this one stops"
    assert left_of(process.pid) == []
    assert run.files(saved) == before
    assert not (run.run / "iter_01" / "checkpoint").exists()
    assert json.loads(file.read_text())["owner"] == "other"
    file.unlink()  # the other one has ended, too
    run.succeeds()
    whole_and_once(run)


@SIGNALS
@pytest.mark.matrix
@pytest.mark.timeout(1200)
def test_a_stop_while_pairs_stream_into_judging(
    loop: Callable[..., Loop], shallow: str, number: signal.Signals
) -> None:
    run = loop(
        iterations=1,
        limit=24,
        shards={"max_rows": 8, "max_seconds": 2},
        generator=scripted(),
        judge=scripted(shallow, **JUDGE),
        judging={"samples": 4},
    )
    stopping = Stopping(run, number)
    stopping.at(stopping.inside("pairs"), *held("generator", ROW), *held("judge", ""))
    assert not stopping.committed("pairs")
    stopping.at(lambda: stopping.committed("iter_01/judgments"))


class Command:
    """`judge` or `evaluate` with the scripted engine, one of whose rows is held until a file is there."""

    def __init__(self, folder: Path, *arguments: object) -> None:
        self.until, self.log = folder / "go", folder / "log"
        self.output = folder / "out"
        script = {"gold_marker": "is", "hold": EVALUATION_ROW, "until": str(self.until)}
        engine = ["--model", "scripted", "--engine.kind", "scripted", "--engine.script", json.dumps(script)]
        quiet = ["--no-ray.dashboard", "--ray.object_store_gib", "0.1"]
        self.line = [sys.executable, "-m", *map(str, arguments), *engine, *quiet, "--output", str(self.output)]
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self) -> subprocess.Popen[bytes]:
        with open(self.log, "wb") as log:
            process = subprocess.Popen(
                self.line,
                cwd=ROOT,
                env=environment(),
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            )
        self.processes.append(process)
        return process

    def stop(self) -> None:
        for process in self.processes:
            end_session(process.pid)


@pytest.fixture
def made() -> Iterator[list[Command]]:
    commands: list[Command] = []
    yield commands
    for command in commands:
        command.stop()


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("judge", signal.SIGTERM),
        ("evaluate", signal.SIGINT),
        pytest.param("judge", signal.SIGINT, marks=pytest.mark.matrix),
        pytest.param("evaluate", signal.SIGTERM, marks=pytest.mark.matrix),
    ],
)
@pytest.mark.timeout(600)
def test_a_stop_of_judge_and_evaluate(tmp_path: Path, made: list[Command], name: str, number: signal.Signals) -> None:
    gold = DEMO / "validation.jsonl"
    given = ["--input", gold] if name == "judge" else ["--benchmark", f"gold={gold}"]
    command = Command(tmp_path, f"ray_app.{name}", *given)
    made.append(command)
    process = command.start()
    deadline = time.monotonic() + 240
    while "engine(s) of scripted" not in command.log.read_text():
        assert process.poll() is None, command.log.read_text()
        assert time.monotonic() < deadline, command.log.read_text()
        time.sleep(0.05)
    os.kill(process.pid, number)
    said_once(number, process.wait(120), command.log.read_text())
    assert left_of(process.pid) == []
    command.until.touch()
    assert command.start().wait(300) == 0, command.log.read_text()


@pytest.mark.timeout(600)
def test_a_second_signal_ends_it_at_once_with_the_same_code(tmp_path: Path, made: list[Command]) -> None:
    """Whoever sends another signal waits no longer; what is in closed shards stays, and the lease says who is gone."""
    command = Command(tmp_path, "ray_app.judge", "--input", DEMO / "validation.jsonl")
    made.append(command)
    process = command.start()
    while "engine(s) of scripted" not in command.log.read_text():
        assert process.poll() is None, command.log.read_text()
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGTERM)
    with contextlib.suppress(ProcessLookupError):
        while process.poll() is None:  # a wrapper may send the same one twice at once; later ones are meant
            os.kill(process.pid, signal.SIGTERM)
            time.sleep(0.1)
    said_once(signal.SIGTERM, process.wait(60), command.log.read_text())
    command.until.touch()
    assert command.start().wait(300) == 0, command.log.read_text()
