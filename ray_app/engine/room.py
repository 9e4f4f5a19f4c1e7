"""Whether the cluster, as it is, has room for a pool."""

from __future__ import annotations

import logging
from collections.abc import Iterable

import ray

from ray_app.engine.capacity import FEED_CPUS, Resources, placeable
from ray_app.engine.settings import EngineSettings
from ray_app.errors import InputError

log = logging.getLogger(__name__)


def require_room(role: str, settings: EngineSettings, may_grow: bool) -> None:
    """Raises InputError naming what is asked and what there is, where nothing more can come; else the log says it."""
    there = list(nodes())
    fitting = placeable(settings, there)
    if fitting >= settings.replicas:
        left = _sum(there, "CPU") - settings.cpus * settings.replicas
        if settings.cpus and left < FEED_CPUS and not may_grow:
            raise InputError(
                f"{role}.cpus: {settings.replicas} engine(s) with {settings.cpus:g} CPUs each leave {left:g} CPUs of "
                f"the cluster's {_sum(there, 'CPU'):g}; the rows that feed them need {FEED_CPUS:g}"
            )
        return
    need = f"{settings.replicas} engine(s) with {settings.gpus_per_replica:g} GPUs and {settings.cpus:g} CPUs each"
    have = f"{_sum(there, 'GPU'):g} GPUs and {_sum(there, 'CPU'):g} CPUs on {len(there)} node(s)"
    text = f"{role}: {need} are asked for; the cluster has {have}, room for {fitting}"
    if not may_grow:
        raise InputError(f"{text}, and it does not grow by itself (else set ray.may_grow)")
    log.warning("%s: waiting up to %.0f s for it to grow", text, settings.start_timeout_s)


def _sum(nodes: Iterable[Resources], kind: str) -> float:
    return sum(node.get(kind, 0) for node in nodes)


def nodes() -> Iterable[Resources]:
    """CPUs and GPUs of every living node."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]
