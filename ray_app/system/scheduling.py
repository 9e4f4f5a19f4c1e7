"""How the processes of a local Ray take turns on the cores with each other, and with other work (sched(7)).

Ray's dozen processes wake a thousand times a second in all, for some microseconds each. Where engines keep every core
busy, each time would interrupt one of their threads while the others wait for it. So a local Ray starts as SCHED_BATCH:
its processes wake up without pushing a busy one aside. What computes (engines, trainers on processors) takes the usual
policy back: its threads wait for each other at every layer, and a thread that may not push aside a stranger's busy
process when it wakes waits a whole time slice for it, thousands of times a second.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

MARK = "RAY_APP_YIELDING"  # in the environment of processes whose policy we have set


@contextlib.contextmanager
def yielding() -> Iterator[None]:
    """This thread, and every process that it starts meanwhile, wakes up without pushing a busy one aside."""
    usual = os.sched_getscheduler(0) == os.SCHED_OTHER  # else its user has chosen
    try:
        if usual:
            os.environ[MARK] = "1"
            _schedule_as(os.SCHED_BATCH)
        yield
    finally:
        if usual:
            os.environ.pop(MARK, None)
            _schedule_as(os.SCHED_OTHER)


def compute() -> None:
    """This thread, and those that it starts from now on, share the cores as any other process does. Where the user
    has chosen a policy for the whole command, it stays.
    """
    if MARK in os.environ:
        _schedule_as(os.SCHED_OTHER)


def _schedule_as(policy: int) -> None:
    with contextlib.suppress(OSError):  # a sandbox may refuse it: then it is only slower
        os.sched_setscheduler(0, policy, os.sched_param(0))
