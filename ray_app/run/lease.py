"""The lease of a run folder: one driver at a time; a second one is refused, or an old one fenced off.

lease.json names the owner. A driver that was killed on this host is replaced at once (its process is gone); one on
another host is replaced when its heartbeat is a minute old. Whoever lost the lease fails at its next shard or commit.
"""

from __future__ import annotations

import os
import socket
import threading
import time
import uuid
from dataclasses import dataclass
from typing import Any

import psutil

from ray_app.errors import InputError, RunError
from ray_app.run import storage

FILE = "lease.json"
HEARTBEAT_S, STALE_S = 10.0, 60.0


@dataclass(frozen=True)
class Fence:
    """Raises once the lease names another owner. Picklable: the writer actor checks before every shard."""

    uri: str
    owner: str

    def check(self) -> None:
        """Raises RunError when another driver holds the run."""
        try:
            holder = storage.read_json(self.uri)
        except FileNotFoundError:
            holder = {"owner": None}
        if holder.get("owner") != self.owner:
            raise RunError(f"another driver took over this run ({describe(holder)}); this one stops")


class Lease:
    """`with Lease(folder): …` holds the run; raises InputError when a living driver has it."""

    def __init__(self, folder_uri: str) -> None:
        self.uri = storage.join(folder_uri, FILE)
        self.fence = Fence(self.uri, uuid.uuid4().hex)
        self.stop = threading.Event()

    def __enter__(self) -> Lease:
        self._acquire()
        threading.Thread(target=self._beat, daemon=True, name="lease").start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        try:
            self.fence.check()
        except RunError:
            return  # not ours to remove
        storage.remove(self.uri)

    def _acquire(self) -> None:
        holder = _read(self.uri)
        if holder is not None and alive(holder, time.time()):
            raise InputError(f"another driver is running this run: {describe(holder)} ({self.uri})")
        if storage.is_local(self.uri):
            self._create_local(holder)
        else:
            self._write()
        # On stores without an exclusive create the last writer wins; the others find out here.
        self.fence.check()

    def _create_local(self, holder: dict[str, Any] | None) -> None:
        path = storage.filesystem(self.uri)[1]
        os.makedirs(os.path.dirname(path), exist_ok=True)
        if holder is not None:
            # A rename succeeds for one of several drivers that all saw the same dead holder.
            grave = f"{path}.dead-{holder['owner']}"
            try:
                os.rename(path, grave)
                os.unlink(grave)
            except FileNotFoundError:
                pass
        mine = f"{path}.{self.fence.owner}"
        storage.write_json_atomic(mine, self._record())
        try:
            os.link(mine, path)  # exclusive, and the content is there at once
        except FileExistsError:
            found = _read(self.uri) or {}
            raise InputError(f"another driver is running this run: {describe(found)} ({self.uri})") from None
        finally:
            os.unlink(mine)

    def _write(self) -> None:
        storage.write_json_atomic(self.uri, self._record())

    def _record(self) -> dict[str, Any]:
        return {
            "owner": self.fence.owner,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "started": psutil.Process().create_time(),
            "heartbeat": time.time(),
        }

    def _beat(self) -> None:
        while not self.stop.wait(HEARTBEAT_S):
            try:
                self.fence.check()
            except RunError:
                return
            self._write()


def alive(holder: dict[str, Any], now: float) -> bool:
    """Whether the holder of a lease is still there: its process on this host, else a fresh heartbeat."""
    if holder.get("host") != socket.gethostname():
        return now - float(holder.get("heartbeat", 0)) < STALE_S
    try:
        return abs(psutil.Process(int(holder["pid"])).create_time() - float(holder["started"])) < 1
    except (psutil.NoSuchProcess, KeyError, ValueError):
        return False


def describe(holder: dict[str, Any]) -> str:
    """Who holds a lease, in words."""
    if not holder.get("owner"):
        return "nobody"
    age = time.time() - float(holder.get("heartbeat", 0))
    return f"process {holder.get('pid')} on {holder.get('host')}, last heard {age:.0f} s ago"


def _read(uri: str) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = storage.read_json(uri)
        return found
    except (FileNotFoundError, ValueError):
        return None
