"""A pool: named engine actors of equal settings. It frees all it took when it closes, on errors too."""

from __future__ import annotations

import logging
import time
import uuid
from typing import Any

import ray

from ray_app.engine.actor import EngineActor
from ray_app.engine.settings import EngineSettings
from ray_app.engine.vllm_engine import environment
from ray_app.errors import RunError
from ray_app.model_files import absolute

log = logging.getLogger(__name__)
START_TIMEOUT_S, CLOSE_TIMEOUT_S = 1800.0, 60.0


class EnginePool:
    """`replicas` engines of one model. Driver-side handle; `actors` are called by the clients."""

    def __init__(self, settings: EngineSettings, role: str, run_id: str) -> None:
        self.settings, self.role = settings, role
        self.name = f"ste-{run_id}-{role}-{uuid.uuid4().hex[:6]}"
        self.actors: list[Any] = []

    def start(self) -> EnginePool:
        """Start every replica and wait for all. Raises RunError with the engine's own cause in one line."""
        started = time.monotonic()
        try:
            for index in range(self.settings.replicas):
                self.actors.append(self._actor(index))
                # Engines that share a GPU measure its free memory when they start: one after the other.
                if self.settings.replicas_per_gpu > 1:
                    self._wait(self.actors[-1:])
            self._wait(self.actors)
        except BaseException:
            self.close()
            raise
        seconds = time.monotonic() - started
        log.info(
            "%s: %d engine(s) of %s ready in %.0f s",
            self.role,
            len(self.actors),
            self.settings.model,
            seconds,
        )
        return self

    def _actor(self, index: int) -> Any:
        settings = self.settings
        options = {
            "name": f"{self.name}-{index}",
            "num_cpus": settings.cpus,
            "num_gpus": settings.gpus_per_replica,
            "max_concurrency": 4 * settings.in_flight + 16,
            "max_restarts": 2,
            "max_task_retries": 3,
            "runtime_env": {"env_vars": environment(settings)} if settings.kind == "vllm" else None,
        }
        remote = ray.remote(EngineActor).options(**{k: v for k, v in options.items() if v is not None})
        return remote.remote(settings.model_copy(update={"model": absolute(settings.model)}), self.role)

    def _wait(self, actors: list[Any]) -> None:
        try:
            states = ray.get([actor.ready.remote() for actor in actors], timeout=START_TIMEOUT_S)
        except ray.exceptions.GetTimeoutError as fault:
            wanted = f"{self.settings.replicas} × {self.settings.gpus_per_replica:g} GPU"
            raise RunError(f"{self.role}: no engine was ready after {START_TIMEOUT_S:.0f} s ({wanted})") from fault
        except ray.exceptions.RayActorError as fault:
            raise RunError(f"{self.role}: an engine of {self.settings.model} died while starting: {fault}") from fault
        faults = [state["fault"] for state in states if state["fault"]]
        if faults:
            raise RunError(f"{self.role}: an engine of {self.settings.model} did not start: {faults[0]}")

    def reload(self, model: str) -> None:
        """Load the weights of `model` into the living engines, and forget their prefix caches."""
        seconds = ray.get([actor.reload.remote(absolute(model)) for actor in self.actors], timeout=START_TIMEOUT_S)
        self.settings = self.settings.model_copy(update={"model": model})
        log.info("%s: weights of %s loaded into the living engines in %.1f s", self.role, model, max(seconds))

    def close(self) -> None:
        """Close every engine and wait until the cluster has its GPUs back."""
        for actor in self.actors:
            try:
                ray.get(actor.close.remote(), timeout=CLOSE_TIMEOUT_S / 4)
            except Exception as fault:
                log.debug("%s: %s did not close by itself: %r", self.role, actor, fault)
            ray.kill(actor)
        taken = self.settings.gpus_per_replica * len(self.actors)
        self.actors = []
        if taken:
            self._wait_for_gpus(taken)

    def _wait_for_gpus(self, gpus: float) -> None:
        deadline = time.monotonic() + CLOSE_TIMEOUT_S
        while ray.available_resources().get("GPU", 0) < min(gpus, ray.cluster_resources().get("GPU", 0)):
            if time.monotonic() > deadline:
                log.warning("%s: Ray has not got its %g GPUs back after %.0f s", self.role, gpus, CLOSE_TIMEOUT_S)
                return
            time.sleep(0.5)
