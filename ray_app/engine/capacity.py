"""What fits where: engines on nodes, pools beside pools, the trainer beside pools. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ray_app.engine.settings import EngineSettings
from ray_app.train.room import takes_workers
from ray_app.train.settings import TrainSettings

Resources = Mapping[str, float]
FEED_CPUS = 1.1  # one reading task of Ray Data, and the client: without them a stage would wait for ever
SPARE_CPUS = 1.5  # the same, where there is a choice


@dataclass(frozen=True)
class NodeLife:
    """A node of the cluster, from when to when it lived (milliseconds of Unix time; `ended` is None while it does)."""

    resources: Resources
    began: int
    ended: int | None = None


def placeable(settings: EngineSettings, nodes: Iterable[Resources]) -> int:
    """How many replicas the (empty) nodes take. One stays on one node, unless its executor is `ray`."""
    offers = [(node.get("CPU", 0.0), node.get("GPU", 0.0)) for node in nodes]
    if settings.spans_nodes:
        offers = [(sum(cpus for cpus, _ in offers), sum(gpus for _, gpus in offers))]
    return sum(_on_one(settings, cpus, gpus) for cpus, gpus in offers)


def cpus_left(settings: EngineSettings, replicas: int, nodes: Iterable[Resources]) -> float:
    """CPUs that so many engines leave for the rows that feed them."""
    return sum(node.get("CPU", 0.0) for node in nodes) - settings.cpus * replicas


def fits(settings: EngineSettings, replicas: int, nodes: Sequence[Resources]) -> bool:
    """Whether the (empty) nodes take so many replicas, and have CPUs to spare for the rows that feed them."""
    fed = not settings.cpus or cpus_left(settings, replicas, nodes) >= FEED_CPUS
    return fed and placeable(settings, nodes) >= replicas


def before_deaths(lives: Iterable[NodeLife]) -> list[list[Resources]]:
    """The cluster as it was just before each node that has died did. A node that ended before another began is not
    counted beside it: on a host where Ray was started anew, the two are one.
    """
    known = list(lives)
    moments = {life.ended for life in known if life.ended is not None}
    return [
        [life.resources for life in known if life.began <= moment and (life.ended is None or life.ended >= moment)]
        for moment in sorted(moments)
    ]


def startable(settings: EngineSettings, living: Sequence[Resources], before: Iterable[Sequence[Resources]]) -> int:
    """How many replicas to start: as many as are wanted where the living nodes take them, and as many as these take
    where only nodes that have died since would have taken all (`before_deaths`). 0: the cluster never had the room, or
    has none left.
    """
    if fits(settings, settings.replicas, living):
        return settings.replicas
    if not any(fits(settings, settings.replicas, nodes) for nodes in before):
        return 0
    return next((many for many in range(settings.replicas - 1, 0, -1) if fits(settings, many, living)), 0)


def left_by(pools: Iterable[EngineSettings], nodes: Iterable[Resources]) -> list[dict[str, float]] | None:
    """What each of the (empty) nodes has left once all replicas of `pools` are placed, or None where they do not fit.

    Those of more GPUs are placed first, each on the first node that takes it: what they leave of a node still takes
    smaller ones, but not the other way round. Replicas that span nodes come last: they take what is left anywhere.
    """
    left = [{"CPU": node.get("CPU", 0.0), "GPU": node.get("GPU", 0.0)} for node in nodes]
    for pool in sorted(pools, key=lambda pool: (pool.spans_nodes, -pool.gpus_per_replica, -pool.cpus)):
        missing = _spread(pool, left) if pool.spans_nodes else pool.replicas
        for node in left:
            here = min(missing, placeable(pool, [node]))
            missing -= here
            node["CPU"] -= here * pool.cpus
            node["GPU"] -= here * pool.gpus_per_replica
        if missing:
            return None
    return left


def _spread(pool: EngineSettings, left: list[dict[str, float]]) -> int:
    """Take what replicas that span nodes need from whichever nodes have it; how many replicas found no room."""
    fitting = min(pool.replicas, placeable(pool, left))
    for kind, wanted in (("CPU", pool.cpus * fitting), ("GPU", pool.gpus_per_replica * fitting)):
        for node in left:
            taken_here = min(wanted, node[kind])
            node[kind] -= taken_here
            wanted -= taken_here
    return pool.replicas - fitting


def _on_one(settings: EngineSettings, cpus: float, gpus: float) -> int:
    limits = []
    if settings.cpus:
        limits.append(cpus / settings.cpus)
    if settings.on_gpu:
        limits.append(gpus // settings.tensor_parallel * settings.replicas_per_gpu)
    return int(min(limits, default=settings.replicas))


def room_beside(wanted: EngineSettings, living: Iterable[EngineSettings], nodes: Iterable[Resources]) -> bool:
    """Whether a pool of `wanted` fits on the nodes beside the living ones, with CPUs to spare for the rows that feed
    them. Eight GPUs that are free are no room for a replica of eight where they lie on two nodes.
    """
    others = list(living)
    left = left_by([*others, wanted], nodes)
    spare = SPARE_CPUS if others else 0.0  # alone it has no one to make room
    return left is not None and sum(node["CPU"] for node in left) >= spare


def trainer_fits(
    train: TrainSettings, living: Iterable[EngineSettings], nodes: Iterable[Resources], cores: float
) -> bool:
    """Whether the trainer's workers fit beside the living pools: by what these leave of each of the (empty) nodes (a
    worker stands on one of them), and by the `cores` there really are.
    """
    pools = list(living)
    left = left_by(pools, nodes)
    if left is None or sum(takes_workers(train, node) for node in left) < train.workers:
        return False
    return train.use_gpu or cores_kept_busy(pools) + train.workers * train.cpus_per_worker <= cores


def pools_fit_cores(pools: Iterable[EngineSettings], cores: float) -> bool:
    """Whether engines that compute on processors have a core for each of their threads."""
    return cores_kept_busy(pools) <= cores


def cores_kept_busy(pools: Iterable[EngineSettings]) -> float:
    """Cores that engines on processors compute with. Ray's `cpus` of an engine say only what it sets aside."""
    return sum(
        pool.cpu_threads * pool.tensor_parallel * pool.replicas
        for pool in pools
        if pool.kind == "vllm" and pool.device == "cpu"
    )


def real_cores(nodes: Iterable[Mapping[str, Any]], here: str, cores_here: int) -> float:
    """Cores of the cluster: what Ray counts, but on this node (id `here`) not more than it has. A local Ray counts at
    least four, so that its small tasks never wait for each other; engines and trainers need real ones.
    """
    return sum(
        min(cpus, cores_here) if node["NodeID"] == here else cpus
        for node in nodes
        if node["Alive"] and (cpus := float(node["Resources"].get("CPU", 0.0)))
    )


def taken(pools: Iterable[EngineSettings]) -> tuple[float, float]:
    """(GPUs, CPUs) that pools take."""
    seen = list(pools)
    return sum(p.gpus_per_replica * p.replicas for p in seen), sum(p.cpus * p.replicas for p in seen)
