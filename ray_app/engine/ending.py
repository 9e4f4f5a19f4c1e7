"""Ends the process of an engine that does not end by itself, with all that it started; Ray then builds it anew."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Any

import psutil
import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from ray_app.engine.actor import value

log = logging.getLogger(__name__)
LIMIT_S, SAME_S = 30.0, 1.0


async def end_process(actor: Any, place: dict[str, Any]) -> None:
    """End the process `place["pid"]` on the node `place["node"]`, from outside: it may be stopped, and hear nothing.

    Where that cannot be done, or it is another process by now, Ray is asked to end the actor.
    """
    ended = False
    try:
        where = NodeAffinitySchedulingStrategy(place["node"], soft=False)
        task = ray.remote(num_cpus=0, max_retries=0)(kill_tree).options(scheduling_strategy=where)
        ended = await asyncio.wait_for(value(task.remote(place["pid"], place["born"])), LIMIT_S)
    except (KeyError, TimeoutError, ray.exceptions.RayError) as fault:
        log.warning("the process of an engine could not be ended from its node (%s)", type(fault).__name__)
    if not ended:
        with contextlib.suppress(ray.exceptions.RayError):
            ray.kill(actor, no_restart=False)


def kill_tree(pid: int, born: float) -> bool:
    """SIGKILL to a process and all below it: a stopped one dies of nothing less. Whether it was there; another one that
    has its number by now is left alone.
    """
    try:
        process = psutil.Process(pid)
        family = [*process.children(recursive=True), process]
        if abs(process.create_time() - born) > SAME_S:
            return False
    except psutil.NoSuchProcess:
        return False
    for one in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            one.kill()
    return True
