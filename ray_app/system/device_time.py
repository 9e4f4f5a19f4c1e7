"""Where the time of a run's GPUs goes: busy with an engine's or the optimizer's steps, or idle, and for which cause.

    clock = DeviceClock(devices=8)
    with clock.cause("engines start"):
        …
    clock.busy(device_seconds)      what engines and trainers have told
    clock.take()                    all since the last take: {"devices", "seconds", "busy", "idle": {cause: …}}

Everything is in device-seconds, but for `seconds`, which are of the wall clock. A run without a GPU counts its machine
as one device. What no cause claims is "other": rows on their way, commits, alarms.
"""

from __future__ import annotations

import contextlib
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

OTHER = "other"


class DeviceClock:
    """One run's account. Its methods are called from the driver's main thread."""

    def __init__(self, devices: float, now: Callable[[], float] = time.monotonic) -> None:
        self.devices, self.now = devices, now
        self.since = now()
        self.worked = 0.0
        self.idle: defaultdict[str, float] = defaultdict(float)
        self.open: list[tuple[str, float]] = []  # causes that are going on, the innermost last, each with its start

    @contextlib.contextmanager
    def cause(self, name: str) -> Iterator[None]:
        """The devices wait for `name` meanwhile. Of causes inside each other the innermost counts."""
        self._settle()
        self.open.append((name, self.now()))
        try:
            yield
        finally:
            self._settle()
            self.open.pop()
            if self.open:
                self.open[-1] = (self.open[-1][0], self.now())

    def _settle(self) -> None:
        if self.open:
            name, started = self.open[-1]
            self.idle[name] += (self.now() - started) * self.devices
            self.open[-1] = (name, self.now())

    def wait(self, name: str, seconds: float) -> None:
        """The devices waited so long for `name`, as somebody else has measured."""
        self.idle[name] += seconds * self.devices

    def busy(self, device_seconds: float) -> None:
        """Devices worked so long, all together."""
        self.worked += device_seconds

    def take(self) -> dict[str, Any]:
        """The account since the last take; the next one begins. Busy and idle add up to seconds times devices."""
        seconds = self.now() - self.since
        total = seconds * self.devices
        busy = min(self.worked, total)
        named = sum(self.idle.values())
        shrunk = min(1.0, (total - busy) / named) if named else 1.0  # clocks of several machines do not agree exactly
        idle = {name: spent * shrunk for name, spent in self.idle.items()}
        idle[OTHER] = max(0.0, total - busy - sum(idle.values()))
        account = {
            "devices": self.devices,
            "seconds": round(seconds, 3),
            "busy": round(busy, 3),
            "idle": {name: round(spent, 3) for name, spent in idle.items() if round(spent, 3)},
        }
        self.since, self.worked = self.now(), 0.0
        self.idle.clear()
        return account


def summed(accounts: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Several takes as one, in device-seconds: `total`, `busy`, and `idle` by cause. Pure."""
    total = busy = 0.0
    idle: defaultdict[str, float] = defaultdict(float)
    for account in accounts:
        total += account["seconds"] * account["devices"]
        busy += account["busy"]
        for name, spent in account["idle"].items():
            idle[name] += spent
    return {"total": total, "busy": busy, "idle": dict(sorted(idle.items()))}


def idle_share(accounts: Iterable[Mapping[str, Any]]) -> float | None:
    """The share of takes in which nothing worked; None of no time at all. Pure."""
    found = summed(accounts)
    return 1 - found["busy"] / found["total"] if found["total"] else None
