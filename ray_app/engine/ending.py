"""Ends the process of an engine that does not end by itself, with all that it started; Ray then builds it anew."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Any

import psutil
import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

log = logging.getLogger(__name__)
LIMIT_S = 30.0


async def end_process(actor: Any, place: dict[str, Any]) -> None:
    """End the process `place["pid"]` on the node `place["node"]`, from outside: it may be stopped, and hear nothing.

    Where that cannot be done, or it is another process by now, Ray is asked to end the actor.
    """
    ended = False
    try:
        where = NodeAffinitySchedulingStrategy(place["node"], soft=False)
        task = ray.remote(num_cpus=0, max_retries=0)(kill_tree).options(scheduling_strategy=where)
        ended = await asyncio.wait_for(_value(task.remote(place["pid"])), LIMIT_S)
    except (KeyError, TimeoutError, ray.exceptions.RayError) as fault:
        log.warning("the process of an engine could not be ended from its node (%s)", type(fault).__name__)
    if not ended:
        with contextlib.suppress(ray.exceptions.RayError):
            ray.kill(actor, no_restart=False)


async def _value(reference: Any) -> Any:
    return await reference


def kill_tree(pid: int) -> bool:
    """SIGKILL to a process and all below it: a stopped one dies of nothing less. Whether it was there."""
    try:
        family = [*psutil.Process(pid).children(recursive=True), psutil.Process(pid)]
    except psutil.NoSuchProcess:
        return False
    for process in family:
        with contextlib.suppress(psutil.NoSuchProcess):  # psutil makes sure that it is not another one of this number
            process.kill()
    return True
