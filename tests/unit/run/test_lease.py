"""One driver a run: a second one is refused, a dead one replaced, a lost one fenced off. With real processes."""

from __future__ import annotations

import errno
import multiprocessing
import os
import pickle
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ray_app.errors import RunError
from ray_app.run import lease as lease_module
from ray_app.run import storage
from ray_app.run.lease import HEARTBEAT_S, LOOK_S, STALE_S, Lease, Seen, standing_of

CONTENDERS, ROUNDS = 6, 20
DRIVER = """
import sys, time
from ray_app.run.lease import Lease
with Lease(sys.argv[1]):
    print("holds", flush=True)
    time.sleep(600)
"""

# A driver whose main thread asks no fence, as in a training.
COMMAND = """
import sys, time
from ray_app.base.settings_parts import CommandSettings
from ray_app.command.load_settings import leave, run_command
from ray_app.run import lease
lease.HEARTBEAT_S = 0.2

def main(settings):
    with lease.Lease(sys.argv[1]):
        print("holds", flush=True)
        time.sleep(600)

leave(run_command(CommandSettings, main, []))
"""


def until(condition: Callable[[], Any]) -> Any:
    """Wait for `condition`; a minute is a failure, not a measurement."""
    for _ in range(1200):
        if found := condition():
            return found
        time.sleep(0.05)
    raise AssertionError("it did not happen")


def lease_file(folder: str) -> str:
    return storage.join(folder, "lease.json")


def write_holder(folder: str, **values: Any) -> None:
    record = {**Lease(folder)._record(), "owner": "other", **values}
    storage.write_json_atomic(lease_file(folder), record)


@pytest.fixture
def driver(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A real driver process that holds the run at tmp_path."""
    process = subprocess.Popen([sys.executable, "-c", DRIVER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "holds\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_hold_and_release(place: str) -> None:
    with Lease(place) as lease:
        lease.fence.check()
        pickle.loads(pickle.dumps(lease.fence)).check()
        assert storage.read_json(lease_file(place))["pid"] == os.getpid()
    assert not storage.exists(lease_file(place))
    with Lease(place):
        pass


def test_a_second_driver_is_refused_and_told_by_whom(place: str) -> None:
    with Lease(place) as first:
        with pytest.raises(RunError) as caught, Lease(place):
            pass
        message = str(caught.value)
        assert f"process {os.getpid()} on {socket.gethostname()}" in message
        assert "\n" not in message
        first.fence.check()


def test_a_living_driver_is_respected_and_a_killed_one_replaced_at_once(
    tmp_path: Path, driver: subprocess.Popen[str]
) -> None:
    with pytest.raises(RunError, match=f"process {driver.pid}"), Lease(str(tmp_path)):
        pass
    driver.send_signal(signal.SIGKILL)
    # Not waited for: until its parent reaps it, the process still has its id and start time.
    until(lambda: Path(f"/proc/{driver.pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z")
    with Lease(str(tmp_path)) as lease:
        lease.fence.check()


def test_a_stopped_driver_is_alive(tmp_path: Path, driver: subprocess.Popen[str]) -> None:
    driver.send_signal(signal.SIGSTOP)
    with pytest.raises(RunError, match=f"process {driver.pid}"), Lease(str(tmp_path)):
        pass


def test_a_process_id_that_was_given_out_again_is_not_the_driver(place: str) -> None:
    write_holder(place, started=storage_ticks() - 1)
    with Lease(place) as lease:
        lease.fence.check()


def storage_ticks() -> int:
    ticks = lease_module._start_ticks(os.getpid())
    assert ticks is not None
    return ticks


class Watching:
    """Stands in for the clock of a driver that wants the run; `meanwhile` is called at each of its looks."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, meanwhile: Callable[[float], None] = lambda now: None) -> None:
        self.now, self.meanwhile = 0.0, meanwhile
        monkeypatch.setattr(lease_module, "pause", self.pause)
        monkeypatch.setattr(lease_module.time, "monotonic", lambda: self.now)

    def pause(self, seconds: float) -> None:
        self.now += seconds
        self.meanwhile(self.now)


ELSEWHERE = [{"host": "elsewhere"}, {"boot": "another container"}, {"pid": 2**22 + 1, "boot": "another container"}]


@pytest.mark.parametrize("elsewhere", ELSEWHERE)
@pytest.mark.parametrize("clock", [-70.0, 0.0, 70.0, 1e6])
def test_of_another_host_a_heartbeat_that_changes_refuses_whatever_the_clocks_say(
    place: str, elsewhere: dict[str, Any], clock: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    def beats(now: float) -> None:
        if now % HEARTBEAT_S < LOOK_S:
            write_holder(place, **elsewhere, heartbeat=time.time() + clock, beat=now)

    beats(0.0)
    watching = Watching(monkeypatch, beats)
    with pytest.raises(RunError, match="another driver is running this run"), Lease(place):
        pass
    assert watching.now <= HEARTBEAT_S
    assert storage.read_json(lease_file(place))["owner"] == "other"


@pytest.mark.parametrize("elsewhere", ELSEWHERE)
@pytest.mark.parametrize("clock", [-1e6, 0.0, 70.0])
def test_of_another_host_a_heartbeat_that_stands_still_is_waited_for_and_replaced(
    place: str,
    elsewhere: dict[str, Any],
    clock: float,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    write_holder(place, **elsewhere, heartbeat=time.time() + clock)
    watching = Watching(monkeypatch)
    with Lease(place) as lease:
        lease.fence.check()
    assert STALE_S <= watching.now <= STALE_S + LOOK_S
    told = [message for message in caplog.messages if "holds this run" in message]
    assert len(told) == 1, "one line, not one a look"
    assert f"process {elsewhere.get('pid', os.getpid())} on " in told[0]
    assert "stands still for 60 s" in told[0]


def test_a_lease_that_is_given_back_while_it_is_watched_is_taken_at_once(
    place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_holder(place, host="elsewhere")
    watching = Watching(monkeypatch, lambda now: storage.remove(lease_file(place)))
    with Lease(place) as lease:
        lease.fence.check()
    assert watching.now == LOOK_S


def test_of_two_that_watch_a_dead_driver_the_second_sees_the_first(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def taken(now: float) -> None:
        write_holder(place, host="a third", owner="who was faster")

    write_holder(place, host="elsewhere")
    Watching(monkeypatch, taken)
    with pytest.raises(RunError, match=r"another driver is running this run: process \d+ on a third"), Lease(place):
        pass


HOLDER = {"owner": "x", "beat": 3}


@pytest.mark.parametrize(
    ("holder", "first", "now", "process", "standing"),
    [
        (None, None, 0.0, None, "free"),
        (None, Seen(HOLDER, 0.0), 1.0, None, "free"),
        (HOLDER, None, 0.0, False, "free"),
        (HOLDER, None, 0.0, True, "living"),
        (HOLDER, Seen(HOLDER, 0.0), 1e9, True, "living"),
        (HOLDER, None, 1e9, None, "silent"),
        (HOLDER, Seen(HOLDER, 5.0), 5.0 + STALE_S - 0.1, None, "silent"),
        (HOLDER, Seen(HOLDER, 5.0), 5.0 + STALE_S, None, "free"),
        (HOLDER | {"beat": 4}, Seen(HOLDER, 5.0), 5.0 + STALE_S, None, "living"),
        (HOLDER | {"owner": "y"}, Seen(HOLDER, 5.0), 6.0, None, "living"),
    ],
)
def test_standing(holder: Any, first: Any, now: float, process: bool | None, standing: str) -> None:
    assert standing_of(holder, first, now, process) == standing


def test_every_heartbeat_changes_what_is_written(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease_module, "HEARTBEAT_S", 0.02)
    monkeypatch.setattr(lease_module.time, "time", lambda: 1.0)  # a clock that stands still
    with Lease(place):
        first = storage.read_json(lease_file(place))
        until(lambda: storage.read_json(lease_file(place)) != first)


def test_a_lease_without_the_newer_fields_is_read(place: str) -> None:
    storage.write_json_atomic(lease_file(place), {"owner": "x", "host": socket.gethostname(), "pid": 1})
    with pytest.MonkeyPatch.context() as monkeypatch:
        watching = Watching(monkeypatch)  # of a boot that it does not name
        with Lease(place):
            pass
    assert watching.now >= STALE_S


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}"])
def test_a_file_that_is_no_lease_locks_nobody_out(place: str, content: bytes) -> None:
    storage.write_bytes_atomic(lease_file(place), content)
    with Lease(place) as lease:
        lease.fence.check()


def test_who_lost_the_lease_is_fenced_off_and_leaves_it_alone(place: str) -> None:
    with Lease(place) as lease:
        write_holder(place, host="elsewhere", pid=7)
        with pytest.raises(RunError, match=r"another driver took over.*process 7 on elsewhere"):
            lease.fence.check()
    assert storage.read_json(lease_file(place))["owner"] == "other"


def test_a_lease_removed_by_hand_stops_the_driver(place: str) -> None:
    with Lease(place) as lease:
        storage.remove(lease_file(place))
        with pytest.raises(RunError, match=r"lease\.json is gone"):
            lease.fence.check()
    assert not storage.exists(lease_file(place))


def test_heartbeats_go_on_after_a_store_failed_once(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease_module, "HEARTBEAT_S", 0.02)
    write, failures = storage.write_json_atomic, []

    def fails_once(uri: str, value: Any) -> None:
        if not failures:
            failures.append(uri)
            raise OSError("503 slow down")
        write(uri, value)

    with Lease(place):
        first = storage.read_json(lease_file(place))["heartbeat"]
        monkeypatch.setattr(storage, "write_json_atomic", fails_once)
        until(lambda: storage.read_json(lease_file(place))["heartbeat"] > first)
    assert failures


def test_a_beat_never_writes_over_another_owner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease_module, "HEARTBEAT_S", 0.0001)
    for number in range(30):
        folder = str(tmp_path / str(number))
        lease = Lease(folder)
        with lease:
            with lease_module._locked(lease.uri):
                write_holder(folder)
            until(lambda lease=lease: not lease.thread.is_alive())  # it saw the other owner
            assert storage.read_json(lease_file(folder))["owner"] == "other"


def test_a_driver_that_lost_its_lease_is_ended_by_its_next_heartbeat(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", COMMAND, str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "holds\n"
        with lease_module._locked(lease_file(str(tmp_path))):
            write_holder(str(tmp_path), host="elsewhere", pid=7)
        assert process.wait(60) == 1
        said = "failed: another driver took over this run (process 7 on elsewhere); this one stops"
        assert process.stderr.read().splitlines() == [said]
    assert storage.read_json(lease_file(str(tmp_path)))["owner"] == "other"


class Failing:
    """Stands in for the reading of a lease, which fails so often."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, fault: Exception, times: int) -> None:
        self.read, self.fault, self.times, self.looks = storage.read_json, fault, times, 0
        monkeypatch.setattr(storage, "PAUSES_S", (0.001, 0.001, 0.001))
        monkeypatch.setattr(storage, "read_json", self)

    def __call__(self, uri: str) -> Any:
        self.looks += 1
        if self.looks <= self.times:
            raise self.fault
        return self.read(uri)


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE])
def test_a_disk_that_fails_for_a_moment_fences_nobody_off(
    place: str, number: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with Lease(place) as lease:
        failing = Failing(monkeypatch, OSError(number, os.strerror(number)), 3)
        lease.fence.check()
        assert failing.looks == 4
        assert "lease.json could not be read" in caplog.text
        failing.looks = 0
        write_holder(place, host="elsewhere")
        with pytest.raises(RunError, match="another driver took over"):  # it is told all the same
            lease.fence.check()


def test_a_disk_that_is_gone_for_good_is_told_as_that(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with Lease(place) as lease, monkeypatch.context() as disk:
        failing = Failing(disk, OSError(errno.EIO, "Input/output error"), 100)
        with pytest.raises(OSError, match="Input/output error"):
            lease.fence.check()
        assert failing.looks == 4


def test_a_lease_that_is_gone_is_looked_for_once(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with Lease(place) as lease:
        failing = Failing(monkeypatch, FileNotFoundError(lease.uri), 100)
        with pytest.raises(RunError, match=r"lease\.json is gone"):
            lease.fence.check()
        assert failing.looks == 1


def test_no_beat_comes_after_the_release(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease_module, "HEARTBEAT_S", 0.0001)
    for _ in range(20):
        with Lease(place) as again:
            pass
        assert not again.thread.is_alive()
        assert not storage.exists(lease_file(place))


def _contend(folders: list[str], barrier: Any, wins: Any) -> None:
    read = lease_module._read

    def read_slowly(uri: str) -> dict[str, Any] | None:
        """What was read is old when it is acted upon: the window that a race needs."""
        holder = read(uri)
        time.sleep(random.Random(os.getpid()).uniform(0, 0.02))
        return holder

    lease_module._read = read_slowly
    for number, folder in enumerate(folders):
        barrier.wait()
        lease = Lease(folder)
        try:
            lease.__enter__()
        except RunError:
            barrier.wait()
            continue
        barrier.wait()  # everyone has tried while this one holds it
        lease.fence.check()  # and nobody took it away
        wins.put((number, os.getpid()))
        lease.__exit__()


@pytest.mark.parametrize("before", ["nobody", "a dead driver"])
def test_of_racing_processes_exactly_one_wins(tmp_path: Path, driver: subprocess.Popen[str], before: str) -> None:
    driver.kill()
    driver.wait()
    dead = storage.read_json(lease_file(str(tmp_path)))
    folders = [str(tmp_path / f"run{i}") for i in range(ROUNDS)]
    if before == "a dead driver":
        for folder in folders:
            storage.write_json_atomic(lease_file(folder), dead)
    context = multiprocessing.get_context("fork")
    barrier, wins = context.Barrier(CONTENDERS, timeout=300), context.SimpleQueue()
    processes = [context.Process(target=_contend, args=(folders, barrier, wins)) for _ in range(CONTENDERS)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(500)
    assert [process.exitcode for process in processes] == [0] * CONTENDERS
    won = []
    while not wins.empty():
        won.append(wins.get())
    assert sorted(number for number, _ in won) == list(range(ROUNDS))
