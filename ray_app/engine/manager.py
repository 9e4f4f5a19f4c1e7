"""Which pools live: reuse what is equal, reload what has the same shape, put to sleep or close what is in the way."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import ray

from ray_app.engine.capacity import pools_fit_cores, real_cores, room_beside, trainer_fits
from ray_app.engine.pool import EnginePool
from ray_app.engine.room import as_started, nodes, require_room
from ray_app.engine.settings import EngineSettings
from ray_app.errors import InputError, RunError
from ray_app.system import precision
from ray_app.system.cluster import may_grow
from ray_app.system.device_time import DeviceClock
from ray_app.system.stopping import stopped
from ray_app.train.settings import TrainSettings

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Serving:
    """A living pool, and how it came by the weights that were asked for."""

    pool: EnginePool
    how: Literal["started", "woken", "reloaded", "reused"]
    seconds: float = 0.0

    def described(self) -> dict[str, Any]:
        """What stage.json says of it."""
        settings = self.pool.settings
        dtype = {"dtype": settings.dtype} if settings.kind == "vllm" else {}
        parts = {name: round(spent, 3) for name, spent in self.pool.parts.items()} if self.how == "started" else {}
        told = {"start_parts": parts} if parts else {}
        return {"weights": self.how, "weights_seconds": round(self.seconds, 3), **dtype, **told}

    def first_answer(self) -> dict[str, Any]:
        """Unix time of the first row answered with weights that were loaded for this; empty where they were there."""
        if self.how == "reused":
            return {}
        times = [stats["first_answer"] for stats in self.pool.stats() if stats["first_answer"]]
        return {"first_answer": round(min(times), 3)} if times else {}


def all_are_kin(_: str) -> bool:
    """Whoever gives one model after the other to a manager has trained them one from the other."""
    return True


def same_shape(a: EngineSettings, b: EngineSettings) -> bool:
    """Whether only the weights differ, and vLLM can load them into the living engine."""
    return a.kind == b.kind == "vllm" and a.model_copy(update={"model": b.model, "revision": b.revision}) == b


def takes(living: EngineSettings, wanted: EngineSettings, kin: Callable[[str], bool]) -> bool:
    """Whether engines of one can be given the weights of the other."""
    return kin(living.model) and kin(wanted.model) and same_shape(living, wanted) and not wanted.revision


def base_of(seed: EngineSettings, settings: EngineSettings, kin: Callable[[str], bool]) -> str | None:
    """The seed model, where `settings` are the engines of one of its checkpoints on GPUs: as that they can start."""
    trained = settings.model != seed.model and seed.of_checkpoint(settings.model) == settings
    related = kin(settings.model) and kin(seed.model)
    plain = not seed.revision and not seed.vllm.keys() & {"quantization", "load_format"}
    return seed.model if settings.on_gpu and settings.kind == "vllm" and trained and related and plain else None


class PoolManager:
    """The living pools of one run. `may_grow` is the setting `ray.may_grow`.

    `sleeps`: pools on GPUs sleep where others need their GPUs, and are not closed. `seed`: the engine of the model that
    the run trains; engines of its checkpoints start as it, and then load theirs (`EnginePool`). `kin`: whether a model
    is the seed, or trained from it. Only kin take each other's weights: a model of the same settings may have another
    tokenizer or template, which an engine keeps from its start.
    """

    def __init__(
        self,
        run_id: str,
        may_grow: bool | None = None,
        sleeps: bool = False,
        seed: EngineSettings | None = None,
        kin: Callable[[str], bool] = all_are_kin,
    ) -> None:
        self.run_id, self._may_grow, self.sleeps, self.seed, self.kin = run_id, may_grow, sleeps, seed, kin
        self.dtype: precision.Dtype | None = None  # where an engine's is auto; None: decided for the first of them
        self.pools: list[EnginePool] = []
        self.clock = DeviceClock(1)  # a run that tells where its time goes gives its own

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
        for pool in list(self.pools):
            if pool.settings == settings and not pool.asleep and self._lives(pool):
                return Serving(pool, "reused")
        kept, started = self.resolved(beside) if beside else None, time.monotonic()
        with self.clock.cause("weights load"):
            if woken := self._woken(role, settings, kept):
                return Serving(woken, "woken", time.monotonic() - started)
            if reloaded := self._reloaded(settings, kept):
                return Serving(reloaded, "reloaded", time.monotonic() - started)
        if settings.kind == "vllm" and settings.device == "cpu":
            precision.warn_if_slow(f"dtype of {role}", named, "cpu")
        with self.clock.cause("engines start"):
            return Serving(self._started(role, settings, kept), "started", time.monotonic() - started)

    def require_room(self, role: str, settings: EngineSettings) -> None:
        """Raises InputError where the cluster as it is has no room: known before any work is done. A run that has lost
        a node goes on with what is left (`room.require_room`).
        """
        require_room(role, settings.resolved(ray.cluster_resources().get("GPU", 0)), may_grow=False)

    def resolved(self, settings: EngineSettings, role: str = "engine") -> EngineSettings:
        """`device: auto` and `dtype: auto` as the cluster has them. Raises InputError where neither can be known."""
        if settings.kind != "vllm":
            return settings
        gpus = ray.cluster_resources().get("GPU", 0)
        if settings.device == "auto" and not gpus and self.may_grow:
            raise InputError(
                f"{role}.device: auto cannot tell on a cluster that has no GPU yet, but may get some: set cuda or cpu"
            )
        resolved = settings.resolved(gpus)
        if resolved.dtype != "auto":
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
        first, second = as_started(first, self.may_grow), as_started(second, self.may_grow)
        total, there = ray.cluster_resources(), nodes()
        have = f"{total.get('GPU', 0):g} GPUs and {total.get('CPU', 0):g} CPUs"
        have += f" on {len(there)} nodes" if len(there) > 1 else ""
        if not pools_fit_cores([first, second], self.cores):
            return False, f"engines of {first.model} and {second.model} would share {self.cores:g} cores"
        if room_beside(second, [first], there):
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
        """Put the pools to sleep, or close them, unless the trainer fits beside them; the log says which and why."""
        awake = [pool for pool in self.pools if not pool.asleep]
        if not awake:
            return
        if trainer_fits(train, [pool.running for pool in awake], nodes(), self.cores):
            log.info("training runs beside the living engines: both fit")
            return
        for pool in awake:
            self._set_aside(pool, "training needs their resources")

    def close(self) -> None:
        """Close every pool."""
        for pool in list(self.pools):
            self._close(pool, "the run ends")

    def _woken(self, role: str, settings: EngineSettings, kept: EngineSettings | None) -> EnginePool | None:
        """A sleeping pool with these weights, once those that hold its GPUs have made room."""
        for pool in [pool for pool in self.pools if pool.asleep]:
            if pool.settings != settings and not takes(pool.settings, settings, self.kin):
                continue
            self._make_room(role, settings, kept)
            if self._loaded(pool, pool.wake, settings.model):
                return pool
        return None

    def _reloaded(self, settings: EngineSettings, kept: EngineSettings | None) -> EnginePool | None:
        for pool in self.pools:
            if pool.asleep or pool.settings == kept or not takes(pool.settings, settings, self.kin):
                continue
            return pool if self._loaded(pool, pool.reload, settings.model) else None
        return None

    def _lives(self, pool: EnginePool) -> bool:
        """Whether a pool has engines left; one whose nodes have all died is closed."""
        try:
            pool.living()
        except RunError as fault:
            log.warning("%s; they start again", fault)
            self._close(pool, "nothing is left of it")
            return False
        return True

    def _loaded(self, pool: EnginePool, load: Callable[[str], None], model: str) -> bool:
        """Whether a pool has taken the weights of `model`; one that could not is closed."""
        try:
            load(model)
        except RunError as fault:
            log.warning("%s; its engines start again", fault)
            self._close(pool, "they could not take other weights")
            return False
        return True

    def _started(self, role: str, settings: EngineSettings, kept: EngineSettings | None) -> EnginePool:
        self._make_room(role, settings, kept)
        base = base_of(self.resolved(self.seed), settings, self.kin) if self.seed else None
        self.pools.append(self._begun(role, settings, base))
        return self.pools[-1]

    def _begun(self, role: str, settings: EngineSettings, base: str | None) -> EnginePool:
        """A pool that has started; where it could not, once more the plain way, with no sleeper beside it."""
        sleepers = [pool for pool in self.pools if pool.asleep]
        try:
            return EnginePool(settings, role, self.run_id, self.may_grow, self.sleeps, base).start()
        except RunError as fault:
            if base is None and not sleepers:
                raise
            log.warning("%s; once more, with nothing beside them and from their own folder", fault)
        for sleeper in sleepers:  # what their processes still hold of a GPU may be what was missing
            self._close(sleeper, f"{role} did not start beside them")
        return self._begun(role, settings, None)

    def _make_room(self, role: str, settings: EngineSettings, kept: EngineSettings | None) -> None:
        """Set the oldest pools aside until one of `settings` fits beside the others."""
        in_the_way = [pool for pool in self.pools if pool.settings != kept and not pool.asleep]
        wanted = as_started(settings, self.may_grow) if in_the_way else settings
        for pool in in_the_way:
            others = [p.running for p in self.pools if not p.asleep]
            enough = pools_fit_cores([*others, wanted], self.cores)
            if enough and room_beside(wanted, others, nodes()):
                return
            self._set_aside(pool, f"{role} needs their resources")

    def _set_aside(self, pool: EnginePool, why: str) -> None:
        if not pool.sleeps:
            self._close(pool, why)
            return
        log.info("%s: engines of %s go to sleep: %s", pool.role, pool.settings.model, why)
        try:
            with self.clock.cause("engines stop"):
                pool.sleep()
        except RunError as fault:
            log.warning("%s; they close", fault)
            self._close(pool, why)

    def _close(self, pool: EnginePool, why: str) -> None:
        log.info("%s: engines of %s close: %s", pool.role, pool.settings.model, why)
        self.pools.remove(pool)
        with self.clock.cause("engines stop"):
            if not stopped():
                self.clock.busy(pool.newly_busy())
            pool.close()

    def count_busy(self) -> None:
        """Ask the engines how long they have worked, for the clock."""
        for pool in self.pools:
            self.clock.busy(pool.newly_busy())
