"""A pool: named engine actors of equal settings. It frees all it took when it closes, on errors too.

with EnginePool(settings, "judge", run_id).start() as pool: …
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Iterable
from typing import Any

import ray
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from ray_app.base.model_files import absolute, require_model
from ray_app.engine.actor import EngineActor
from ray_app.engine.capacity import FEED_CPUS, Resources, placeable
from ray_app.engine.settings import EngineSettings
from ray_app.engine.vllm_engine import environment
from ray_app.errors import InputError, RunError
from ray_app.system.stopping import stopped

log = logging.getLogger(__name__)
TELL_EVERY_S, CLOSE_S, FREE_S = 30.0, 15.0, 60.0


class EnginePool:
    """`replicas` engines of one model. Driver-side handle; `actors` are called by the clients."""

    def __init__(self, settings: EngineSettings, role: str, run_id: str, may_grow: bool = True) -> None:
        self.settings, self.role, self.run_id, self.may_grow = settings, role, run_id, may_grow
        self.name = f"ste-{run_id}-{role}-{uuid.uuid4().hex[:6]}"
        self.actors: list[Any] = []
        self.started: list[Any] = []  # of the actors, those that have answered
        self.groups: list[PlacementGroup] = []

    @property
    def model(self) -> str:
        """The weights served, by a name that holds in every process of the cluster."""
        return absolute(self.settings.model) if self.settings.kind == "vllm" else self.settings.model

    def start(self) -> EnginePool:
        """Start every replica and wait for all.

        Raises InputError for a model folder that is not there or more than the cluster has, before anything is
        started, and RunError with the engine's own cause in one line, after everything taken is free again.
        """
        started = time.monotonic()
        if self.settings.kind == "vllm":
            require_model(self.settings.model, f"{self.role}.model")
        require_room(self.role, self.settings, self.may_grow)
        try:
            # The first of engines that share a GPU compiles alone; the others then find what it compiled.
            for many in (
                (1, self.settings.replicas) if self.settings.replicas_per_gpu > 1 else (self.settings.replicas,)
            ):
                self.actors += [self._actor(index) for index in range(len(self.actors), many)]
                self._wait()
        except BaseException:
            self.close()
            raise
        seconds = time.monotonic() - started
        log.info("%s: %d engine(s) of %s in %.0f s", self.role, len(self.actors), self.settings.model, seconds)
        return self

    def _actor(self, index: int) -> Any:
        settings = self.settings
        options: dict[str, Any] = {
            "name": f"{self.name}-{index}",
            "num_cpus": settings.cpus,
            "num_gpus": settings.gpus_per_replica,
            "max_concurrency": 4 * settings.in_flight + 16,
            "max_restarts": 2,
            "max_task_retries": 3,
        }
        if settings.kind == "vllm":
            options["runtime_env"] = {"env_vars": environment(settings)}
        if settings.executor == "ray" and settings.tensor_parallel > 1:
            options |= self._spanning_nodes()
        return (
            ray.remote(EngineActor)
            .options(**options)
            .remote(settings.model_copy(update={"model": self.model}), self.role, self.run_id)
        )

    def _spanning_nodes(self) -> dict[str, Any]:
        """vLLM's ray executor uses the group its actor stands in; one of its own would outlive the pool."""
        gpus = self.settings.tensor_parallel
        bundles: list[dict[str, float]] = [{"GPU": 1.0, "CPU": self.settings.cpus}] + [{"GPU": 1.0}] * (gpus - 1)
        self.groups.append(placement_group(bundles, strategy="PACK"))
        where = PlacementGroupSchedulingStrategy(
            self.groups[-1], placement_group_bundle_index=0, placement_group_capture_child_tasks=True
        )
        return {"num_gpus": 0, "scheduling_strategy": where}

    def _wait(self) -> None:
        waiting = {a.ready.remote(): i for i, a in enumerate(self.actors) if a not in self.started}
        deadline = time.monotonic() + self.settings.start_timeout_s
        told = time.monotonic()
        while waiting:
            done, _ = ray.wait(list(waiting), timeout=min(TELL_EVERY_S, max(0.0, deadline - time.monotonic())))
            for reference in done:
                self._check_started(waiting.pop(reference), reference)
            if waiting and time.monotonic() > deadline:
                limit = self.settings.start_timeout_s
                raise RunError(f"{self.role}: {len(waiting)} engine(s) were not ready after {limit:.0f} s")
            if waiting and time.monotonic() - told >= TELL_EVERY_S:
                told = time.monotonic()
                log.info("%s: %d of %d engines are ready", self.role, len(self.actors) - len(waiting), len(self.actors))

    def _check_started(self, index: int, reference: Any) -> None:
        try:
            fault = ray.get(reference)["fault"]
        except ray.exceptions.RayActorError as error:
            lines = str(error).strip().splitlines()
            fault = f"its process died: {lines[-1].strip() if lines else type(error).__name__}"
        if fault:
            raise RunError(f"{self.role}: engine {index} of {self.settings.model} did not start: {fault}")
        self.started.append(self.actors[index])

    def reload(self, model: str) -> None:
        """Load the weights of `model` into the living engines, and forget their prefix caches.

        Raises InputError when the folder is not there, RunError when an engine could not: then close the pool.
        """
        require_model(model, f"{self.role}.model")
        started = time.monotonic()
        try:
            ray.get([a.reload.remote(absolute(model)) for a in self.actors], timeout=self.settings.start_timeout_s)
        except (ray.exceptions.RayError, TimeoutError) as fault:
            lines = str(fault).strip().splitlines()
            raise RunError(f"{self.role}: {model} could not be loaded: {lines[-1] if lines else fault!r}") from fault
        self.settings = self.settings.of_checkpoint(model)
        seconds = time.monotonic() - started
        log.info("%s: weights of %s loaded into the living engines in %.1f s", self.role, model, seconds)

    def stats(self) -> list[dict[str, Any]]:
        """Each replica's counts; `first_answer` is the Unix time of its first unit with these weights."""
        found: list[dict[str, Any]] = ray.get([actor.stats.remote() for actor in self.actors])
        return found

    def close(self) -> None:
        """Close every engine and wait until the cluster has its GPUs back; after a stop, kill them without a wait."""
        taken = 0 if stopped() else self.settings.gpus_per_replica * len(self.actors)
        closing = [] if stopped() else [actor.close.remote() for actor in self.started]
        if closing:
            ray.wait(closing, num_returns=len(closing), timeout=CLOSE_S)
        for actor in self.actors:
            ray.kill(actor)
        for group in self.groups:
            remove_placement_group(group)
        self.actors, self.started, self.groups = [], [], []
        if taken:
            self._wait_for_gpus(taken)

    def _wait_for_gpus(self, taken: float) -> None:
        deadline = time.monotonic() + FREE_S
        while ray.available_resources().get("GPU", 0) < min(taken, ray.cluster_resources().get("GPU", 0)):
            if time.monotonic() > deadline:
                log.warning("%s: Ray has not got its %g GPUs back after %.0f s", self.role, taken, FREE_S)
                return
            time.sleep(0.5)

    def __enter__(self) -> EnginePool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


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
