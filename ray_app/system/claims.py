"""Ray's account of the GPUs that engines use: a claim is taken before an engine starts, given back while it sleeps.

The process of an engine outlives its claim. While it sleeps, the trainer computes on the same GPUs, and Ray has to
count them as the trainer's. So a claim is a placement group of its own, the engine's actor asks Ray for no GPU, and is
told which ones are its own. On waking the same GPUs have to be claimed again: an engine cannot move. The CPUs that are
set aside for it are claimed with them: a sleeper needs none.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from ray_app.errors import RunError, first_line

log = logging.getLogger(__name__)
FREE_S = 60.0
TOLD_S = 30.0  # of waiting for GPUs: then the log tells what is free
VISIBLE = "CUDA_VISIBLE_DEVICES"


@dataclass(frozen=True)
class Place:
    """The node of a claim (Ray's id) and the GPUs there, by the ids that CUDA_VISIBLE_DEVICES takes."""

    node: str
    gpus: tuple[str, ...]


@dataclass(frozen=True)
class Claim:
    """GPUs that Ray counts as taken until `release`."""

    group: PlacementGroup
    place: Place


def claim(
    gpus: float, count: int, timeout_s: float, nodes: Sequence[str] | None = None, cpus: float = 0.0
) -> list[Claim]:
    """`count` claims of `gpus` GPUs and `cpus` CPUs each, every one on one node; on `nodes`, one for each, where they
    are named.

    Waits for nodes that a cluster may still get. Raises RunError where they are not there after `timeout_s` seconds, or
    at once where a named node is gone; then nothing is claimed.
    """
    living = {node["NodeID"] for node in ray.nodes() if node["Alive"]}
    if gone := set(nodes or ()) - living:
        raise RunError(f"node {min(gone)} is gone")
    deadline = time.monotonic() + timeout_s
    groups = [_group(gpus, cpus, nodes[index] if nodes else None) for index in range(count)]
    try:
        wanted = f"{count} times {f'{gpus:g} GPU(s)' if gpus else f'{cpus:g} CPU(s)'}"
        for group in groups:
            _wait_for(group, deadline, wanted, timeout_s)
        places = ray.get([_asked(group, gpus) for group in groups])
    except BaseException as fault:
        for group in groups:
            remove_placement_group(group)
        if isinstance(fault, ray.exceptions.RayError):
            raise RunError(f"GPUs could not be claimed: {first_line(fault)}") from fault
        raise
    return [Claim(group, place) for group, place in zip(groups, places, strict=True)]


def _wait_for(group: PlacementGroup, deadline: float, wanted: str, timeout_s: float) -> None:
    """Until it is placed; what is awaited, and what is free, stands in the log twice a minute meanwhile."""
    while not group.wait(min(TOLD_S, max(0.1, deadline - time.monotonic()))):
        if time.monotonic() >= deadline:
            raise RunError(f"{wanted} were not free after {timeout_s:.0f} s")
        log.warning("waiting for %s: %s", wanted, what_is_free())


def what_is_free() -> str:
    """What the cluster has left for an engine, in words."""
    nodes = sum(bool(node["Alive"]) for node in ray.nodes())
    free = ray.available_resources()
    cpus, gpus = (free.get(kind, 0.0) for kind in ("CPU", "GPU"))
    return f"{gpus:g} GPUs and {cpus:g} CPUs are free on {nodes} node(s)"


def _group(gpus: float, cpus: float, node: str | None) -> PlacementGroup:
    selector = [{"ray.io/node-id": node}] if node else None
    bundle = {kind: amount for kind, amount in (("GPU", gpus), ("CPU", cpus)) if amount}
    return placement_group([bundle], strategy="PACK", bundle_label_selector=selector)


def across_nodes(gpus: int, cpus: float) -> tuple[PlacementGroup, PlacementGroupSchedulingStrategy]:
    """A group for an actor whose workers take `gpus` GPUs on any nodes, and where the actor stands in it.

    vLLM's ray executor uses the group its actor stands in; one of its own would outlive the pool.
    """
    bundles: list[dict[str, float]] = [{"GPU": 1.0, "CPU": cpus}] + [{"GPU": 1.0}] * (gpus - 1)
    group = placement_group(bundles, strategy="PACK")
    return group, PlacementGroupSchedulingStrategy(
        group, placement_group_bundle_index=0, placement_group_capture_child_tasks=True
    )


def _asked(group: PlacementGroup, gpus: float) -> Any:
    """Which GPUs Ray has given to a group: a task inside it can tell, the group itself cannot."""
    where = PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=0)
    return ray.remote(num_cpus=0, num_gpus=gpus, max_retries=0)(_here).options(scheduling_strategy=where).remote()


def _here() -> Place:
    return Place(ray.get_runtime_context().get_node_id(), tuple(str(gpu) for gpu in ray.get_gpu_ids()))


def release(claims: Iterable[Claim]) -> None:
    """Ray may give these GPUs to others."""
    for one in claims:
        remove_placement_group(one.group)


def wait_for_gpus(role: str, taken: float) -> None:
    """Wait until Ray counts so many GPUs as free, or all there are; no longer than `FREE_S`."""
    deadline = time.monotonic() + FREE_S
    while ray.available_resources().get("GPU", 0) < min(taken, ray.cluster_resources().get("GPU", 0)):
        if time.monotonic() > deadline:
            log.warning("%s: Ray has not got its %g GPUs back after %.0f s", role, taken, FREE_S)
            return
        time.sleep(0.5)


def matched(places: Sequence[Place], claims: Sequence[Claim]) -> list[Claim] | None:
    """The claims in the order of `places`, one for each; None where they are not for the same GPUs. Pure.

    Ray numbers the GPUs of a node as it likes, so claims taken anew may be the same ones in another order.
    """
    left = list(claims)
    found = []
    for place in places:
        one = next((c for c in left if c.place.node == place.node and set(c.place.gpus) == set(place.gpus)), None)
        if one is None:
            return None
        left.remove(one)
        found.append(one)
    return found
