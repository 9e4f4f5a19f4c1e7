"""Work beside the main thread."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import TypeVar

from ray_app.errors import last_line

log = logging.getLogger(__name__)
Made = TypeVar("Made")
Item = TypeVar("Item")
MOST_THREADS, FEW = 8, 64


def in_background(work: Callable[[], Made]) -> Future[Made]:
    """Do some work in a thread that ends with the process: a stop waits for none of it."""
    done: Future[Made] = Future()

    def run() -> None:
        try:
            done.set_result(work())
        except BaseException as fault:
            done.set_exception(fault)

    threading.Thread(target=run, daemon=True, name="in background").start()
    return done


def in_threads(work: Callable[[Item], Made], items: Sequence[Item]) -> list[Made]:
    """`work` of each item, in their order, for work that leaves Python's lock to others (tokenizers). The first item is
    done alone: what a library prepares on its first call is then there for all.
    """
    threads = min(MOST_THREADS, os.cpu_count() or 1)
    if len(items) < FEW or threads == 1:
        return [work(item) for item in items]
    head = work(items[0])
    with ThreadPoolExecutor(threads) as pool:
        return [head, *pool.map(work, items[1:])]


class OneByOne:
    """Works in the background, never two at a time, in their order."""

    def __init__(self) -> None:
        self.last: Future[None] | None = None

    def do(self, work: Callable[[], None]) -> None:
        """Begin some work once the one before has ended. Raises that one's fault."""
        self.wait()
        self.last = in_background(work)

    def end(self) -> None:
        """Until nothing is going on. A fault of the last work is only logged: another one ends the command."""
        last, self.last = self.last, None
        if last and not wait([last]).not_done and (fault := last.exception()):
            log.warning("left undone beside that: %s", last_line(fault))

    def wait(self) -> None:
        """Until nothing is going on. Raises the fault of the last work, once."""
        last, self.last = self.last, None
        if last:
            last.result()
