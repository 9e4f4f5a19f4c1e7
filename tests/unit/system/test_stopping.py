"""How a command stops when its main thread cannot: the thread that listens, a second signal, the limit in a job."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest
from loop_runs import ROOT

from ray_app.system import stopping

LINE = "the same command continues this run"
HEAD = """
import ctypes, os, sys, threading, time
from ray_app.base.settings_parts import CommandSettings
from ray_app.command.load_settings import leave, run_command
from ray_app.system import stopping

def say(words):
    os.write(2, words.encode() + bytes([10]))  # not by the stream: a signal in its flush would have it written again
"""
# A mutex that is locked twice holds its thread in the C library, where no Python handler ever runs.
DEAF = """
def main(settings):
    threading.Timer(0.5, say, ["ready"]).start()  # by then this thread is where it stays
    libc, mutex = ctypes.CDLL(None), (ctypes.c_byte * 64)()
    libc.pthread_mutex_init(mutex, None)
    for _ in range(2):
        libc.pthread_mutex_lock(mutex)
"""


def command(main: str, limit: float = 30.0) -> subprocess.Popen[str]:
    """A command of this project with this `main`, which has said that it is ready."""
    times = f"stopping.STOP_S, stopping.LAST_S = {limit}, 0.2\n"
    code = HEAD + times + main + "\nleave(run_command(CommandSettings, main, []))\n"
    line = [sys.executable, "-c", code]
    process = subprocess.Popen(
        line,
        cwd=ROOT,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        # In the background of a script SIGINT is ignored, and so it would be here.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stderr is not None
    assert process.stderr.readline() == "ready\n"
    return process


def ended(process: subprocess.Popen[str]) -> tuple[int, list[str]]:
    assert process.stderr is not None
    errors = process.stderr.read()
    return process.wait(60), errors.splitlines()


@pytest.mark.parametrize(
    ("number", "code", "verb"), [(signal.SIGTERM, 143, "stopped"), (signal.SIGINT, 130, "interrupted")]
)
def test_a_main_thread_that_hears_nothing_is_ended_at_the_deadline(number: int, code: int, verb: str) -> None:
    process = command(DEAF, limit=1.0)
    process.send_signal(number)
    assert ended(process) == (code, [f"{verb}; {LINE}"])


def test_a_second_signal_waits_for_no_deadline() -> None:
    process = command(DEAF, limit=600.0)
    process.send_signal(signal.SIGTERM)
    time.sleep(2 * stopping.AGAIN_S)  # a wrapper may send the same signal twice at once: that is still the first
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert ended(process) == (143, [f"stopped; {LINE}"])


def test_what_is_open_is_closed_and_the_last_acts_are_done() -> None:
    process = command("""
def main(settings):
    with stopping.last_act(lambda: say("last act")):
        try:
            say("ready")
            time.sleep(600)
        finally:
            say("closed")
""")
    process.send_signal(signal.SIGTERM)
    assert ended(process) == (143, ["closed", "last act", f"stopped; {LINE}"])


def test_closing_that_takes_too_long_is_cut_short() -> None:
    process = command(
        """
def main(settings):
    try:
        say("ready")
        time.sleep(600)
    finally:
        time.sleep(600)
""",
        limit=1.0,
    )
    process.send_signal(signal.SIGINT)
    assert ended(process) == (130, [f"interrupted; {LINE}"])


def test_a_sigterm_that_ray_made_a_system_exit_is_a_stop() -> None:
    """`ray.init` installs a handler of its own, which exits with the number of the signal."""
    process = command("""
def main(settings):
    say("ready")
    with stopping.keeping_sigterm():
        sys.exit(15)
""")
    assert ended(process) == (143, [f"stopped; {LINE}"])


@pytest.mark.parametrize(
    ("environment", "limit"),
    [
        ({}, stopping.STOP_S),
        ({stopping.IN_A_JOB: "{}"}, 3 - 1.2 * stopping.LAST_S),
        ({stopping.IN_A_JOB: "{}", stopping.JOB_STOP: "60"}, stopping.STOP_S),
        ({stopping.IN_A_JOB: "{}", stopping.JOB_STOP: "many"}, 3 - 1.2 * stopping.LAST_S),
        ({stopping.IN_A_JOB: "{}", stopping.JOB_STOP: "0.1"}, 0.5),
    ],
)
def test_a_job_has_as_long_as_ray_job_stop_gives(environment: dict[str, str], limit: float) -> None:
    assert stopping.limit_s(environment) == pytest.approx(limit)


SLEEPING = """
def main(settings):
    try:
        say("ready")
        time.sleep(600)
    finally:
        say("closed")
"""


@pytest.mark.parametrize(("main", "closed"), [(SLEEPING, ["closed"]), (DEAF, [])])
def test_a_command_that_gives_up_ends_wherever_its_main_thread_is(main: str, closed: list[str]) -> None:
    """With the line and the code of a failure, not those of a stop."""
    lost = """
threading.Timer(2.0, lambda: stopping.give_up("the run is another driver's")).start()
"""
    process = command(lost + main, limit=1.0)
    assert ended(process) == (1, [*closed, "failed: the run is another driver's"])


def test_outside_a_command_nobody_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stopping.signal, "pthread_kill", lambda *_: pytest.fail("a signal was sent"))
    stopping.give_up("nobody listens")
    assert not stopping.stopped()
