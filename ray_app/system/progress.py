"""Progress of long work: a bar on a terminal, else a log line every ten seconds (also in `ray job logs`). Where the
command is a Ray job, the line stands in the dashboard's list of jobs too, and its figures are Ray metrics.

Rows are counted when the shard writer has them, tokens as the engines make them: where the first row takes minutes, its
tokens show that it is on its way.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import ray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from ray_app.system import job_line
from ray_app.system.ray_metrics import set_gauge
from ray_app.system.stopping import stopped

log = logging.getLogger(__name__)
QUIET_S, TERMINAL_S = 10.0, 1.0
ASK_S = 5.0
FEW = 0.1  # of a stage's rows: the first to end are the short ones
SILENT_S = 30.0  # of a shard writer: then the log tells of it


@dataclass(frozen=True)
class Part:
    """One stage of the work, the shard writer that knows how far it is, and the engines that make its tokens."""

    label: str
    total: int
    writer: Any
    engines: tuple[Any, ...] = ()
    run: str = ""
    at_most: bool = False  # `total` is what there would be if the stage before it lost nothing


class Progress:
    """Asks shard writers and engines how far they are, from a thread of the driver, until the block ends."""

    def __init__(self, *parts: Part) -> None:
        self.parts = parts
        self.lines = [""] * len(parts)
        self.started = time.monotonic()
        self.before: dict[tuple[Any, ...], int] = {}  # tokens that engines had made when the block began
        self.stop = threading.Event()
        self.bar: Bar | None = None
        self.tasks: list[Any] = []
        self.heard = [self.started] * len(parts)  # when each shard writer last answered, or was told of

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
        self.thread.join(timeout=0 if stopped() else 10)
        if self.bar:
            self.bar.stop()
        if not stopped():
            self._last_news()
        for part in self.parts:  # else a finished stage would look like one whose engines stand still
            set_gauge("ste_units_left", 0, {"run": part.run, "work": part.label})

    def _watch(self) -> None:
        self.before = {part.engines: _tokens(part.engines) or 0 for part in self.parts}
        while not self.stop.wait(TERMINAL_S if self.bar else QUIET_S):
            made = {engines: _tokens(engines) for engines in self.before}
            for index, part in enumerate(self.parts):
                try:
                    asked = [part.writer.progress.remote(), part.writer.news.remote()]
                    counts, news = ray.get(asked, timeout=ASK_S)
                    units = counts["units"]
                except Exception:
                    self._tell_silence(index)  # of other faults the work itself tells
                    continue
                self.heard[index] = time.monotonic()
                _say(part, news)
                _measure(part, units, made.get(part.engines))
                # Engines that serve two stages make one number: it stands on the first line.
                self._tell(index, units, made.pop(part.engines, None))

    def _last_news(self) -> None:
        for part in self.parts:
            with contextlib.suppress(Exception):  # of a writer that died the work itself tells
                _say(part, ray.get(part.writer.news.remote(), timeout=ASK_S))

    def _tell_silence(self, index: int) -> None:
        """A disk or a store that hangs shows nowhere else: engines wait for the writer, and rows for engines."""
        silent = time.monotonic() - self.heard[index]
        if silent >= SILENT_S and not self.stop.is_set():
            self.heard[index] += SILENT_S
            words = "%s: the shard writer has not answered for %.0f s or more: the run folder may be slow, or full"
            log.warning(words, self.parts[index].label, SILENT_S)

    def _tell(self, index: int, units: int, tokens: int | None) -> None:
        part, seconds = self.parts[index], time.monotonic() - self.started
        of_all = sum(other.engines == part.engines for other in self.parts) > 1
        rate = line_of_tokens(tokens, self.before[part.engines], seconds, of_all)
        rows = f"{units} of {'at most ' if part.at_most else ''}{part.total} rows"
        told = ", ".join(text for text in (rows, rate, left(units, part.total, seconds, part.at_most)) if text)
        self.lines[index] = f"{part.label}: {told}"
        job_line.tell(" | ".join(line for line in self.lines if line))
        if self.bar:
            self.bar.update(self.tasks[index], completed=units, rate=rate)
            return
        log.info("%s", self.lines[index])
        sys.stderr.flush()


def _say(part: Part, news: Sequence[str]) -> None:
    """What the stage's client warns of."""
    for line in news:
        log.warning("%s: %s", part.label, line)


def _measure(part: Part, units: int, tokens: int | None) -> None:
    """What the dashboard draws, and by what it sees that engines stand still."""
    tags = {"run": part.run, "work": part.label}
    set_gauge("ste_units_left", max(0, part.total - units), tags)
    if tokens is not None:
        set_gauge("ste_tokens_made", tokens, tags)


def left(units: int, total: int, seconds: float, at_most: bool = False) -> str:
    """How long the rest will take, by what `units` of `total` took; nothing while they are too few to tell, where the
    total is not known yet (`at_most`), or none are left: a stage that runs beside another ends with it. Pure.
    """
    if not units:
        return "no row is finished yet"
    if at_most or units >= total:
        return ""
    return f"about {seconds * (total - units) / units:,.0f} s left" if units >= FEW * total else ""


def line_of_tokens(tokens: int | None, before: int, seconds: float, of_all: bool = False) -> str:
    """What engines have made in `seconds`; nothing where it is not known. `of_all`: for several stages. Pure."""
    if tokens is None:
        return ""
    made = max(0, tokens - before)  # an engine that was built anew counts from nothing
    return f"{made:,} tokens{' for both stages' if of_all else ''}, {made / seconds:,.0f} tok/s"


def _tokens(engines: tuple[Any, ...]) -> int | None:
    """Tokens that the engines have made since their start; None where one does not answer."""
    try:
        made: list[int] = ray.get([engine.generated.remote() for engine in engines], timeout=ASK_S)
        return sum(made)
    except Exception:
        return None
