"""Which pools live: reuse what is equal, reload what has the same shape, close what stands in the way."""

from __future__ import annotations

import logging
import os
import time
from dataclasses import dataclass
from typing import Any, Literal

import ray

from ray_app.engine.capacity import placeable_beside, pools_fit_cores, real_cores, room_beside, trainer_fits
from ray_app.engine.pool import EnginePool, nodes, require_room
from ray_app.engine.settings import EngineSettings
from ray_app.errors import InputError, RunError
from ray_app.system import precision
from ray_app.system.cluster import may_grow
from ray_app.train.settings import TrainSettings

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Serving:
    """A living pool, and how it came by the weights that were asked for: started, reloaded or reused."""

    pool: EnginePool
    how: Literal["started", "reloaded", "reused"]
    seconds: float = 0.0

    def described(self) -> dict[str, Any]:
        """What stage.json says of it."""
        settings = self.pool.settings
        dtype = {"dtype": settings.dtype} if settings.kind == "vllm" else {}
        return {"weights": self.how, "weights_seconds": round(self.seconds, 3), **dtype}

    def first_answer(self) -> dict[str, Any]:
        """Unix time of the first row answered with weights that were loaded for this; empty where they were there."""
        if self.how == "reused":
            return {}
        try:
            times = [stats["first_answer"] for stats in self.pool.stats() if stats["first_answer"]]
        except ray.exceptions.RayError:  # the stage is done; that an engine has died since is no fault of it
            return {}
        return {"first_answer": round(min(times), 3)} if times else {}


def same_shape(a: EngineSettings, b: EngineSettings) -> bool:
    """Whether only the weights differ, and vLLM can load them into the living engine."""
    return a.kind == b.kind == "vllm" and a.model_copy(update={"model": b.model, "revision": b.revision}) == b


class PoolManager:
    """The living pools of one run. `may_grow` is the setting `ray.may_grow`."""

    def __init__(self, run_id: str, may_grow: bool | None = None) -> None:
        self.run_id, self._may_grow = run_id, may_grow
        self.dtype: precision.Dtype | None = None  # where an engine's is auto; None: decided for the first of them
        self.pools: list[EnginePool] = []

    @property
    def may_grow(self) -> bool:
        """Whether the cluster may get more nodes than it has."""
        return may_grow(ray.nodes()) if self._may_grow is None else self._may_grow

    @property
    def cores(self) -> float:
        """Cores that the cluster really has."""
        return real_cores(ray.nodes(), ray.get_runtime_context().get_node_id(), os.cpu_count() or 1)

    def get(self, role: str, settings: EngineSettings, beside: EngineSettings | None = None) -> Serving:
        """A living pool with these settings: the same one again, reloaded, or started. One of `beside` stays as it is.

        Raises InputError for a model that is not there or that the cluster has no room for, RunError when engines do
        not start.
        """
        named, settings = settings.dtype, self.resolved(settings, role)
        for pool in self.pools:
            if pool.settings == settings:
                return Serving(pool, "reused")
        kept, started = self.resolved(beside) if beside else None, time.monotonic()
        reloaded = self._reloaded(settings, kept)
        if not reloaded and settings.kind == "vllm" and settings.device == "cpu":
            precision.warn_if_slow(f"dtype of {role}", named, "cpu")
        pool = reloaded or self._started(role, settings, kept)
        return Serving(pool, "reloaded" if reloaded else "started", time.monotonic() - started)

    def require_room(self, role: str, settings: EngineSettings) -> None:
        """Raises InputError where the cluster as it is has no room: known before any work is done."""
        require_room(role, settings.resolved(ray.cluster_resources().get("GPU", 0)), may_grow=False)

    def resolved(self, settings: EngineSettings, role: str = "engine") -> EngineSettings:
        """`device: auto` and `dtype: auto` as the cluster has them. Raises InputError where neither can be known."""
        gpus = ray.cluster_resources().get("GPU", 0)
        if settings.kind == "vllm" and settings.device == "auto" and not gpus and self.may_grow:
            raise InputError(
                f"{role}.device: auto cannot tell on a cluster that has no GPU yet, but may get some: set cuda or cpu"
            )
        resolved = settings.resolved(gpus)
        if resolved.kind != "vllm" or resolved.dtype != "auto":
            return resolved
        if self.dtype is None:
            kind: precision.Kind = "cpu" if resolved.device == "cpu" else "cuda"
            self.dtype = precision.decided({kind}, grows=self.may_grow)
        return resolved.decided(self.dtype)

    def side_by_side(self, first: EngineSettings, second: EngineSettings) -> tuple[bool, str]:
        """Whether two pools can run at the same time (or are one), and why, in words."""
        first, second = self.resolved(first), self.resolved(second)
        if first == second:
            return True, f"the engines of {first.model} serve both"
        total = ray.cluster_resources()
        have = f"{total.get('GPU', 0):g} GPUs and {total.get('CPU', 0):g} CPUs"
        if not pools_fit_cores([first, second], self.cores):
            return False, f"engines of {first.model} and {second.model} would share {self.cores:g} cores"
        if room_beside(second, [first], total) and placeable_beside(second, first, nodes()):
            return True, f"{have} are enough for {first.model} and {second.model}"
        return False, f"{have} are too few for {first.model} and {second.model}"

    def get_both(
        self, first: tuple[str, EngineSettings], second: tuple[str, EngineSettings]
    ) -> tuple[Serving, Serving]:
        """Two pools (role, settings) at the same time, or one for both, where `side_by_side` allows it."""
        if self.resolved(first[1]) == self.resolved(second[1]):
            serving = self.get(*first)
            return serving, Serving(serving.pool, "reused")
        largest, other = sorted((first, second), key=lambda one: -one[1].tensor_parallel)
        # The larger engines first: what they leave of a node still takes smaller ones, but not the other way round.
        served = {one[0]: self.get(*one, beside=beside[1]) for one, beside in ((largest, other), (other, largest))}
        return served[first[0]], served[second[0]]

    def release_for_training(self, train: TrainSettings) -> None:
        """Close the pools unless the trainer fits beside them; the log says which and why."""
        if not self.pools:
            return
        if trainer_fits(train, [pool.settings for pool in self.pools], ray.cluster_resources(), self.cores):
            log.info("training runs beside the living engines: both fit")
            return
        for pool in list(self.pools):
            self._close(pool, "training needs their resources")

    def close(self) -> None:
        """Close every pool."""
        for pool in list(self.pools):
            self._close(pool, "the run ends")

    def _reloaded(self, settings: EngineSettings, kept: EngineSettings | None) -> EnginePool | None:
        for pool in self.pools:
            if pool.settings == kept or not same_shape(pool.settings, settings) or settings.revision:
                continue
            try:
                pool.reload(settings.model)
                return pool
            except RunError as fault:
                log.warning("%s; its engines start again", fault)
                self._close(pool, "their weights could not be replaced")
                return None
        return None

    def _started(self, role: str, settings: EngineSettings, kept: EngineSettings | None) -> EnginePool:
        for pool in [pool for pool in self.pools if pool.settings != kept]:  # the oldest first
            others = [p.settings for p in self.pools]
            enough = pools_fit_cores([*others, settings], self.cores)
            if enough and room_beside(settings, others, ray.cluster_resources()):
                break
            self._close(pool, f"{role} needs their resources")
        pool = EnginePool(settings, role, self.run_id, self.may_grow).start()
        self.pools.append(pool)
        return pool

    def _close(self, pool: EnginePool, why: str) -> None:
        log.info("%s: engines of %s close: %s", pool.role, pool.settings.model, why)
        self.pools.remove(pool)
        pool.close()
