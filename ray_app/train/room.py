"""A training whose workers find no room, because a node has gone, or because engines or another job hold what there is:
what it waits for is told, and told again.

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
WAITING = ("PENDING", "RESCHEDULING")  # states of a placement group


def wanted_by(settings: TrainSettings) -> dict[str, float]:
    """What Ray sets aside for each worker. Pure."""
    return {"CPU": settings.cpus_per_worker} | ({"GPU": 1.0} if settings.use_gpu else {})


def takes_workers(settings: TrainSettings, node: Mapping[str, float]) -> int:
    """How many workers a node with these resources takes. Pure."""
    return int(min(node.get(kind, 0.0) // each for kind, each in wanted_by(settings).items()))


def room_for(nodes: Sequence[Mapping[str, Any]], settings: TrainSettings) -> int:
    """How many workers the living nodes of `ray.nodes()` would take if they did nothing else. Pure."""
    return sum(takes_workers(settings, node["Resources"]) for node in nodes if node["Alive"])


def missing_room(nodes: Sequence[Mapping[str, Any]], settings: TrainSettings, limit_s: float) -> str | None:
    """The line that says what a training waits for, and how long at most; None where there is room. Pure."""
    fitting = room_for(nodes, settings)
    if fitting >= settings.workers:
        return None
    return _line(nodes, settings, f"room for {fitting}", "a node comes", limit_s)


def held_room(
    nodes: Sequence[Mapping[str, Any]], free: Mapping[str, float], settings: TrainSettings, limit_s: float
) -> str:
    """The same of a training that waits though the nodes would have room: others hold it. `free`: what nobody holds, of
    all nodes together. Pure.
    """
    left = f"of which {free.get('GPU', 0.0):g} GPUs and {free.get('CPU', 0.0):g} CPUs are free"
    return _line(nodes, settings, left, "engines or other jobs give back what they hold", limit_s)


def _line(nodes: Sequence[Mapping[str, Any]], settings: TrainSettings, room: str, until: str, limit_s: float) -> str:
    living = [node["Resources"] for node in nodes if node["Alive"]]
    gpus, cpus = (sum(node.get(kind, 0.0) for node in living) for kind in ("GPU", "CPU"))
    each = f"{settings.cpus_per_worker:g} CPUs" + (" and a GPU" if settings.use_gpu else "")
    return (
        f"training waits for room: {settings.workers} workers with {each} each, and {len(living)} node(s) with "
        f"{gpus:g} GPUs and {cpus:g} CPUs are there, {room}; it goes on from its last saved state when {until}, or "
        f"fails after {limit_s / 60:.0f} min (stop it, and the same command continues)"
    )


def waits(groups: Mapping[str, Mapping[str, Any]], settings: TrainSettings) -> bool:
    """Whether a placement group as Ray Train asks for, for workers like these, waits; `groups` as
    `ray.util.placement_group_table()` tells them. Pure.
    """
    wanted = wanted_by(settings)
    return any(
        group["state"] in WAITING
        and len(group["bundles"]) == settings.workers
        and all({kind: b[kind] for kind in ("CPU", "GPU") if b.get(kind)} == wanted for b in group["bundles"].values())
        for group in groups.values()
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
    waited = 0  # looks in a row that found workers waiting: an ordinary start is over by the second one
    while not ended.wait(LOOK_S):
        try:
            nodes = ray.nodes()
            line = missing_room(nodes, settings, limit_s)
            waited = waited + 1 if waits(ray.util.placement_group_table(), settings) else 0
            if line is None and waited > 1:
                line = held_room(nodes, ray.available_resources(), settings, limit_s)
        except Exception:  # the connection to Ray is gone: whoever waits for the training hears of that
            return
        if line and (told is None or time.monotonic() - told >= TELL_S):
            log.warning("%s", line)
            told = time.monotonic()
        elif not line and told is not None:
            log.warning("training: there is room again")
            told = None
