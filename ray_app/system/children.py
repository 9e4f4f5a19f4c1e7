"""The processes below this one, and their end."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Collection
from typing import Any

import psutil

from ray_app.system.stopping import LAST_S


def end_children(but: Collection[int] = ()) -> None:
    """Kill every process below this one, and wait until they are gone: the last act of who started a local Ray. `but`
    are process ids of children that stay, with all below them.

    multiprocessing's trackers end by themselves when nobody needs them any more, and first remove the shared memory
    that the killed ones had.
    """
    me = psutil.Process()
    for child in me.children():
        if child.pid in but:
            continue
        with contextlib.suppress(psutil.Error):
            child.suspend()  # so that it starts no other while they are counted
    below = [one for child in me.children() if child.pid not in but for one in (child, *_below(child))]
    trackers = [process for process in below if _is_tracker(process)]
    for process in set(below) - set(trackers):
        with contextlib.suppress(psutil.Error):
            process.kill()
    _wait_until_gone(below, LAST_S)
    for process in trackers:
        with contextlib.suppress(psutil.Error):
            process.kill()


def _below(process: Any) -> list[Any]:
    with contextlib.suppress(Exception):  # psutil's: it has ended meanwhile
        return list(process.children(recursive=True))
    return []


def _is_tracker(process: Any) -> bool:
    try:
        return any("multiprocessing.resource_tracker" in part for part in process.cmdline())
    except OSError:
        return False
    except Exception:  # psutil's own: it is gone
        return False


def _wait_until_gone(processes: list[Any], seconds: float) -> None:
    until = time.monotonic() + seconds
    while processes and time.monotonic() < until:
        left = []
        for process in processes:
            with contextlib.suppress(psutil.Error):
                if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                    left.append(process)
        processes = left
        time.sleep(0.02)
