"""A training whose workers find no room, because a node has gone: what it waits for is told, and told again.

    with telling_of_room(settings): trainer.fit()

Ray Train waits in silence, for nodes that may come back; how long is `launch.START_TIMEOUT_S` and `START_RETRIES`.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import ray

from ray_app.train.settings import TrainSettings

log = logging.getLogger(__name__)
LOOK_S, TELL_S = 10.0, 60.0


def room_for(nodes: Sequence[Mapping[str, Any]], settings: TrainSettings) -> int:
    """How many workers the living nodes of `ray.nodes()` would take if they did nothing else. Pure."""
    wanted = {"CPU": settings.cpus_per_worker} | ({"GPU": 1.0} if settings.use_gpu else {})
    return sum(
        int(min((node["Resources"].get(kind, 0.0) // each for kind, each in wanted.items() if each), default=0))
        for node in nodes
        if node["Alive"]
    )


def missing_room(nodes: Sequence[Mapping[str, Any]], settings: TrainSettings, limit_s: float) -> str | None:
    """The line that says what a training waits for, and how long at most; None where there is room. Pure."""
    fitting = room_for(nodes, settings)
    if fitting >= settings.workers:
        return None
    living = [node["Resources"] for node in nodes if node["Alive"]]
    gpus, cpus = (sum(node.get(kind, 0.0) for node in living) for kind in ("GPU", "CPU"))
    each = f"{settings.cpus_per_worker:g} CPUs" + (" and a GPU" if settings.use_gpu else "")
    return (
        f"training waits for room: {settings.workers} workers with {each} each, and {len(living)} node(s) with "
        f"{gpus:g} GPUs and {cpus:g} CPUs are there, room for {fitting}; it goes on from its last saved state when a "
        f"node comes, or fails after {limit_s / 60:.0f} min (stop it, and the same command continues)"
    )


@contextlib.contextmanager
def telling_of_room(settings: TrainSettings, limit_s: float) -> Iterator[None]:
    """Looks every ten seconds, in a thread, and warns at once and then every minute while room is missing."""
    ended = threading.Event()
    thread = threading.Thread(target=_watch, args=(settings, limit_s, ended), daemon=True, name="room for training")
    thread.start()
    try:
        yield
    finally:
        ended.set()


def _watch(settings: TrainSettings, limit_s: float, ended: threading.Event) -> None:
    told: float | None = None
    while not ended.wait(LOOK_S):
        try:
            line = missing_room(ray.nodes(), settings, limit_s)
        except Exception:  # the connection to Ray is gone: whoever waits for the training hears of that
            return
        if line and (told is None or time.monotonic() - told >= TELL_S):
            log.warning("%s", line)
            told = time.monotonic()
        elif not line and told is not None:
            log.warning("training: there is room again")
            told = None
