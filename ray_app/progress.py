"""Progress of long work: a bar on a terminal, else a log line every ten seconds (also in `ray job logs`)."""

from __future__ import annotations

import logging
import sys
import threading
import time
from dataclasses import dataclass
from typing import Any

import ray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

log = logging.getLogger(__name__)
QUIET_S, TERMINAL_S = 10.0, 1.0


@dataclass(frozen=True)
class Part:
    """One stage of the work, and the shard writer that knows how far it is."""

    label: str
    total: int
    writer: Any


class Progress:
    """Asks the shard writers how far they are, from a thread of the driver, until the block ends."""

    def __init__(self, *parts: Part) -> None:
        self.parts = parts
        self.started = time.monotonic()
        self.stop = threading.Event()
        self.bar: Bar | None = None
        self.tasks: list[Any] = []

    def __enter__(self) -> Progress:
        console = Console(stderr=True)
        if console.is_terminal:
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
            self.bar = Bar(*columns, TextColumn("{task.fields[rate]}"), TimeRemainingColumn(), console=console)
            self.bar.start()
            self.tasks = [self.bar.add_task(part.label, total=part.total, rate="") for part in self.parts]
        self.thread = threading.Thread(target=self._watch, daemon=True, name="progress")
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        self.thread.join(timeout=10)
        if self.bar:
            self.bar.stop()

    def _watch(self) -> None:
        while not self.stop.wait(TERMINAL_S if self.bar else QUIET_S):
            for index, part in enumerate(self.parts):
                try:
                    state = ray.get(part.writer.progress.remote(), timeout=5)
                except Exception:
                    continue  # the work itself reports what is wrong
                self._tell(index, state["units"], state["completion_tokens"])

    def _tell(self, index: int, units: int, tokens: float) -> None:
        part, seconds = self.parts[index], time.monotonic() - self.started
        rate = f"{tokens / seconds:,.0f} tok/s"
        if self.bar:
            self.bar.update(self.tasks[index], completed=units, rate=rate)
            return
        left = f"{seconds * (part.total - units) / units:,.0f} s left" if units else "starting"
        log.info("%s: %d of %d rows, %s, %s", part.label, units, part.total, rate, left)
        sys.stderr.flush()
