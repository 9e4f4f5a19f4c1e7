"""The lease of a run folder: one driver at a time; a second one is refused, or an old one fenced off.

    with Lease(folder_uri) as lease:
        ...
        lease.fence.check()   # before every shard and commit

lease.json names the owner, whose heartbeat writes it anew every ten seconds. A driver that was killed on this host is
replaced at once (its process is gone). Of one on another host no clock is compared: whoever wants the run watches the
file by its own monotonic clock. A heartbeat that changes refuses it, one that stands still for a minute is a dead
driver's. Whoever lost the lease fails at its next shard or commit, and ends by its next heartbeat whatever it does
(a training writes no shards).

On local paths a file lock makes every change of the lease exclusive. Object stores have no lock: there two drivers
that replace the same dead one, or one that wakes up while it is replaced, may for a moment both hold the run; the
last to write keeps it, and no shard of either replaces one of the other (`shards.py`).
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ray_app.base.stores import is_remote
from ray_app.errors import InputError, RunError
from ray_app.run import storage
from ray_app.system.stopping import at_most, give_up, last_act

log = logging.getLogger(__name__)
FILE = "lease.json"
HEARTBEAT_S, STALE_S = 10.0, 60.0
LOOK_S = 1.0  # between two looks at the lease of a driver on another host
Standing = Literal["free", "living", "silent"]


@dataclass(frozen=True)
class Fence:
    """Raises once the lease names another owner. Picklable: the writer actor checks before every shard."""

    uri: str
    owner: str

    def check(self) -> None:
        """Raises RunError when another driver holds the run, or nobody does. A disk or a store that fails tells
        neither; it is asked again, as long as a write would be, and then raises its own error.
        """
        storage.retried(self.uri, self.look, "read")

    def look(self) -> None:
        """`check` by one look."""
        try:
            holder = storage.read_json(self.uri)
        except FileNotFoundError:
            raise RunError(f"{self.uri} is gone: this driver does not hold the run any more, and stops") from None
        if holder.get("owner") != self.owner:
            raise RunError(f"another driver took over this run ({describe(holder)}); this one stops")


@dataclass(frozen=True)
class Seen:
    """A lease as a driver that wants it saw it first, and when, by its own monotonic clock."""

    holder: dict[str, Any]
    since: float


class Lease:
    """`with Lease(folder): …` holds the run, once a silent driver has proved dead; raises RunError when a living one
    has it.
    """

    def __init__(self, folder_uri: str) -> None:
        self.uri = storage.join(folder_uri, FILE)
        self.fence = Fence(self.uri, uuid.uuid4().hex)
        self.beats = 0
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self._beat, daemon=True, name="lease")

    def __enter__(self) -> Lease:
        with contextlib.ExitStack() as taken:
            taken.enter_context(last_act(self.release))
            self._acquire()
            # Where there is no lock, another driver may have come between: it is found out here, or at the next shard.
            self.fence.check()
            self.thread.start()
            self.taken = taken.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        with self.taken:
            self.release()

    def release(self) -> None:
        """Give the run back, where this driver still holds it."""
        self.stop.set()
        if self.thread.is_alive():
            self.thread.join(at_most(STALE_S))  # a beat under way would write the lease anew after its removal
        try:
            with _locked(self.uri):
                self.fence.look()
                storage.remove(self.uri)
        except RunError:
            return  # not ours to remove
        except Exception as fault:  # must not hide how the run itself ended; the lease goes stale by itself
            log.warning("the lease was not released: %s", fault)

    def _acquire(self) -> None:
        first: Seen | None = None
        while True:
            with _locked(self.uri):
                holder = _read(self.uri)
                process = None if holder is None else process_of(holder)
                standing = standing_of(holder, first, time.monotonic(), process)
                if standing == "free":
                    self._take()
                    return
            holder = holder or {}
            if standing == "living":
                raise self._refused(holder)
            if first is None:
                first = Seen(holder, time.monotonic())
                log.warning(
                    "%s holds this run (%s): it is replaced if its heartbeat stands still for %.0f s",
                    *(describe(holder), self.uri, STALE_S),
                )
            pause(LOOK_S)

    def _take(self) -> None:
        storage.remove(self.uri)
        try:
            storage.create_bytes(self.uri, storage.json_bytes(self._record()))
        except FileExistsError:
            holder = _read(self.uri) or {}
            if holder.get("owner") != self.fence.owner:  # else it was written, and the store's answer was lost
                raise self._refused(holder) from None

    def _refused(self, holder: dict[str, Any]) -> RunError:
        return RunError(
            f"another driver is running this run: {describe(holder)} ({self.uri}); wait for it to end, or stop it there"
        )

    def _record(self) -> dict[str, Any]:
        return {
            "owner": self.fence.owner,
            "host": socket.gethostname(),
            "boot": _boot(),
            "pid": os.getpid(),
            "started": _start_ticks(os.getpid()),
            "heartbeat": time.time(),  # for people: nothing compares it with another clock
            "beat": self.beats,  # what changes even where the clock stands still
        }

    def _beat(self) -> None:
        while not self.stop.wait(HEARTBEAT_S):
            try:
                with _locked(self.uri):  # a driver that slept for a minute must not write over its successor
                    self.fence.look()  # once: the next beat is the next try
                    self.beats += 1
                    storage.write_json_atomic(self.uri, self._record())
            except RunError as fault:  # the main thread may be in a training, which asks no fence for hours
                if not self.stop.is_set():
                    give_up(str(fault))
                return
            except Exception as fault:  # a store that does not answer once: the next beat may get through
                log.warning("no heartbeat of the lease: %s", fault)


@contextlib.contextmanager
def _locked(uri: str) -> Iterator[None]:
    """One process at a time, on local paths; the kernel frees the lock of a killed one. Elsewhere nothing."""
    if is_remote(uri):
        yield
        return
    path = f"{storage.filesystem(uri)[1]}.lock"
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT))
    except OSError as fault:
        raise InputError(f"the run folder {os.path.dirname(path)} cannot be written to: {fault.strerror}") from fault
    with open(path, "ab") as file:
        with contextlib.suppress(OSError):  # a shared disk may be mounted without locks
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def standing_of(holder: dict[str, Any] | None, first: Seen | None, now: float, process: bool | None) -> Standing:
    """Whether a run can be taken from `holder`, the lease as it is now; pure.

    `first`: the lease as it was seen first, None at the first look. `now`: seconds of the clock of `first.since`.
    `process`: whether the holder's process lives; None where that cannot be seen from here. A living process is living
    even where it beats no more (a stopped one may go on); of any other holder only a change of what it writes tells.
    """
    if holder is None or process is False:
        return "free"
    if process or (first is not None and holder != first.holder):
        return "living"
    return "silent" if first is None or now - first.since < STALE_S else "free"


def process_of(holder: dict[str, Any]) -> bool | None:
    """Whether the process that holds a lease lives; None where it is not of this host, or of another container."""
    if (holder.get("host"), holder.get("boot")) != (socket.gethostname(), _boot()):
        return None
    started = _start_ticks(int(holder["pid"]))
    return started is not None and started == holder.get("started")


def pause(seconds: float) -> None:
    """Wait between two looks at a lease."""
    time.sleep(seconds)


def _boot() -> str:
    """This boot and process namespace: two containers may share a host name, but not their process ids."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        boot = ""
    return f"{boot} {os.readlink('/proc/self/ns/pid')}"


def _start_ticks(pid: int) -> int | None:
    """When a process started, in clock ticks since boot; None when it is gone, or dead and not yet reaped.

    Not psutil's create_time: that adds the boot time, which moves with every correction of the clock.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()  # the name before it may hold spaces; see proc_pid_stat(5)
    state, ticks = fields[0], int(fields[19])
    return None if state in "ZX" else ticks


def describe(holder: dict[str, Any]) -> str:
    """Who holds a lease, in words."""
    if not holder.get("owner"):
        return "nobody"
    return f"process {holder.get('pid')} on {holder.get('host')}"


def _read(uri: str) -> dict[str, Any] | None:
    """The holder, or None when there is none or the file is no lease."""
    try:
        found = storage.read_json(uri)
    except (FileNotFoundError, ValueError):
        return None
    return found if isinstance(found, dict) and "pid" in found else None
