"""Engines that may go with their nodes: which of them live, and calls of all that do."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

import ray

from ray_app.errors import last_line

ASK_S, LOOK_EVERY_S = 5.0, 30.0
BACK_S = 30.0  # until an engine answers from another node: Ray has to start its process there


def where_now(places: Mapping[Any, str]) -> dict[Any, str]:
    """Of engines, by the node that each was last seen on (Ray's id), those that live, by their node of now.

    One whose node is gone is asked: Ray starts it on another that has room. One that says nothing for `BACK_S` has
    found none, or may stand on no other.
    """
    living = {node["NodeID"] for node in ray.nodes() if node["Alive"]}
    lasting = {actor: node for actor, node in places.items() if node in living}
    told = _told({actor: actor.pulse.remote() for actor in places if actor not in lasting}, BACK_S)
    return lasting | {actor: answer["node"] for actor, answer in told.items()}


def answers(actors: Iterable[Any], method: str) -> dict[Any, Any]:
    """What engines answer at once, those that do not left out: a call of one that Ray finds no node for would wait for
    ever.
    """
    return _told({actor: getattr(actor, method).remote() for actor in actors}, ASK_S)


def _told(calls: Mapping[Any, Any], limit_s: float) -> dict[Any, Any]:
    if calls:
        ray.wait(list(calls.values()), num_returns=len(calls), timeout=limit_s)
    told = {}
    for actor, call in calls.items():
        with contextlib.suppress(ray.exceptions.RayError, TimeoutError):
            told[actor] = ray.get(call, timeout=0)
    return told


def failure(calls: Mapping[Any, Any], left: Callable[[], Collection[Any]], limit_s: float) -> str | None:
    """Wait for calls, by the engine of each: why one failed, in one line; None where none did.

    `left` tells which engines are left, where one has failed or says nothing: what is called of others does not count.
    """
    waiting, deadline = dict(calls), time.monotonic() + limit_s
    while waiting:
        remaining = max(0.0, deadline - time.monotonic())
        done, _ = ray.wait(list(waiting), timeout=min(LOOK_EVERY_S, remaining))
        ended = {call: waiting.pop(call) for call in done}
        faults = {ended[call]: fault for call in done if (fault := _fault(call))}
        if faults or not done:
            engines = left()
            for engine, fault in faults.items():
                if engine in engines:
                    return fault
            waiting = {call: engine for call, engine in waiting.items() if engine in engines}
        if waiting and not remaining:
            return f"no answer after {limit_s:.0f} s"
    return None


def _fault(call: Any) -> str | None:
    try:
        ray.get(call)
    except ray.exceptions.RayError as fault:
        return last_line(fault)
    return None
