"""Whether the cluster, as it is, has room for a pool, and for how much of it after a node has died."""

from __future__ import annotations

import logging
from collections.abc import Iterable

import ray

from ray_app.engine.capacity import (
    FEED_CPUS,
    NodeLife,
    Resources,
    before_deaths,
    cpus_left,
    fits,
    placeable,
    startable,
)
from ray_app.engine.settings import EngineSettings
from ray_app.errors import InputError

log = logging.getLogger(__name__)
ASK_S = 30.0


def require_room(role: str, settings: EngineSettings, may_grow: bool) -> int:
    """How many replicas to start: fewer than are wanted only where the nodes that took all have died since.

    Raises InputError naming what is asked and what there is, where nothing more can come; where more may come, all are
    to be started, and the log tells what is missing.
    """
    there = nodes()
    fitting = placeable(settings, there)
    if may_grow and fitting >= settings.replicas:
        return settings.replicas
    if not may_grow and (many := _startable(settings, there)):
        return many
    if fitting >= settings.replicas:
        raise InputError(
            f"{role}.cpus: {settings.replicas} engine(s) with {settings.cpus:g} CPUs each leave "
            f"{cpus_left(settings, settings.replicas, there):g} CPUs of the cluster's {_sum(there, 'CPU'):g}; the rows "
            f"that feed them need {FEED_CPUS:g}"
        )
    need = f"{settings.replicas} engine(s) with {settings.gpus_per_replica:g} GPUs and {settings.cpus:g} CPUs each"
    have = f"{_sum(there, 'GPU'):g} GPUs and {_sum(there, 'CPU'):g} CPUs on {len(there)} node(s)"
    text = f"{role}: {need} are asked for; the cluster has {have}, room for {fitting}"
    if not may_grow:
        raise InputError(f"{text}, and it does not grow by itself (else set ray.may_grow)")
    log.warning("%s: waiting up to %.0f s for it to grow", text, settings.start_timeout_s)
    return settings.replicas


def as_started(settings: EngineSettings, may_grow: bool) -> EngineSettings:
    """`settings` with as many replicas as would start now; with all where none would, for the start then tells why."""
    many = 0 if may_grow else _startable(settings, nodes())
    return settings.model_copy(update={"replicas": many}) if many else settings


def _startable(settings: EngineSettings, there: list[Resources]) -> int:
    enough = fits(settings, settings.replicas, there)
    return startable(settings, there, [] if enough else _before_deaths())


def _sum(nodes: Iterable[Resources], kind: str) -> float:
    return sum(node.get(kind, 0) for node in nodes)


def nodes() -> list[Resources]:
    """CPUs and GPUs of every living node."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def _before_deaths() -> list[list[Resources]]:
    if all(node["Alive"] for node in ray.nodes()):
        return []
    asked = ray.remote(num_cpus=0)(_lives).remote()
    try:
        return before_deaths(ray.get(asked, timeout=ASK_S))
    except (ray.exceptions.RayError, TimeoutError) as fault:
        log.warning("what the cluster was before a node died is not known (%s)", type(fault).__name__)
        return []


def _lives() -> list[NodeLife]:
    """Of every node that Ray's head remembers. `ray.nodes()` names dead nodes, but no longer what they had; asked in a
    task, for a driver that came through a Ray client has no line to the head.
    """
    from ray._private.worker import global_worker

    known = global_worker.gcs_client.get_all_node_info(timeout=ASK_S).values()
    return [NodeLife(dict(node.resources_total), node.start_time_ms, node.end_time_ms or None) for node in known]
