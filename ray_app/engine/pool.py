"""A pool: named engine actors of equal settings. It frees all it took when it closes, on errors too.

with EnginePool(settings, "judge", run_id).start() as pool: …

On GPUs a pool can sleep while others use them: it then holds no weights, no caches and none of Ray's GPUs, but its
processes live on, with what they compiled and captured, so that waking takes seconds where a start takes minutes.
"""

from __future__ import annotations

import contextlib
import logging
import time
import uuid
from collections import Counter
from typing import Any

import ray
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy, PlacementGroupSchedulingStrategy

from ray_app.base.model_files import absolute, require_model
from ray_app.engine.actor import EngineActor
from ray_app.engine.base import Start
from ray_app.engine.room import require_room
from ray_app.engine.settings import EngineSettings
from ray_app.engine.vllm_engine import environment
from ray_app.errors import RunError
from ray_app.system.claims import Claim, claim, matched, release
from ray_app.system.stopping import stopped

log = logging.getLogger(__name__)
TELL_EVERY_S, CLOSE_S, FREE_S, ASK_S = 30.0, 15.0, 60.0, 5.0
STARTS = 3  # of an engine whose process dies while it starts


class EnginePool:
    """`replicas` engines of one model. Driver-side handle; `actors` are called by the clients.

    `sleeps`: its engines are started so that they can sleep. `base`: a model of the same shape, as which engines start
    without its weights before they load their own: vLLM compiles anew for every path of a model, so that each
    checkpoint would be compiled for again.
    """

    def __init__(
        self,
        settings: EngineSettings,
        role: str,
        run_id: str,
        may_grow: bool = True,
        sleeps: bool = False,
        base: str | None = None,
    ) -> None:
        self.settings, self.role, self.run_id, self.may_grow = settings, role, run_id, may_grow
        self.sleeps = sleeps and settings.can_sleep
        self.base = absolute(base) if base else None
        self.asleep = False
        self.name = f"ste-{run_id}-{role}-{uuid.uuid4().hex[:6]}"
        self.actors: list[Any] = []
        self.started: list[Any] = []  # of the actors, those that have answered
        self.groups: list[PlacementGroup] = []
        self.claims: list[Claim] = []  # of the GPUs, one an engine; none where Ray counts them with the actor
        self.busy_before: dict[int, float] = {}  # seconds of each engine at the last question
        self.deaths: Counter[int] = Counter()  # of each engine while it started
        self.parts: dict[str, float] = {}  # seconds of the slowest engine's start, by what it did

    @property
    def model(self) -> str:
        """The weights served, by a name that holds in every process of the cluster."""
        return self._named(self.settings.model)

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
            if self._claims_gpus:
                gpus, timeout_s = self.settings.gpus_per_replica, self.settings.start_timeout_s
                self.claims = claim(gpus, self.settings.replicas, timeout_s, cpus=self.settings.cpus)
            # The first of engines that share a GPU compiles alone; the others then find what it compiled.
            for many in (
                (1, self.settings.replicas) if self.settings.replicas_per_gpu > 1 else (self.settings.replicas,)
            ):
                self.actors += [self._actor(index) for index in range(len(self.actors), many)]
                self._wait()
            if self.base:
                self._load("reload", self.settings.model)
        except BaseException:
            self.close()
            raise
        seconds = time.monotonic() - started
        told = ", ".join(f"{name} {spent:.1f}" for name, spent in self.parts.items())
        text = f"{self.role}: {len(self.actors)} engine(s) of {self.settings.model} in {seconds:.0f} s"
        log.info("%s", f"{text} ({told})" if told else text)
        return self

    @property
    def _claims_gpus(self) -> bool:
        return self.settings.on_gpu and not self.settings.spans_nodes

    def _actor(self, index: int) -> Any:
        settings = self.settings
        options: dict[str, Any] = {
            "name": f"{self.name}-{index}",
            "num_cpus": settings.cpus,
            "max_concurrency": 4 * settings.in_flight + 16,
            "max_restarts": -1,  # clients limit how often (`replicas.py`): a count would end an engine of a long run
            "max_task_retries": 3,  # not of `run` (`actor.ask`)
        }
        if settings.kind == "vllm":
            options["runtime_env"] = {"env_vars": environment(settings)}
        gpus: tuple[str, ...] | None = None
        if self._claims_gpus:
            place = self.claims[index].place
            options["scheduling_strategy"] = NodeAffinitySchedulingStrategy(place.node, soft=False)
            options["num_cpus"] = 0  # they are claimed with its GPUs
            gpus = place.gpus
        elif settings.spans_nodes:
            options |= self._spanning_nodes()
        served = settings.model_copy(update={"model": self.base or self.model})
        start = Start(sleeps=self.sleeps, without_weights=bool(self.base), gpus=gpus, run=self.run_id)
        return ray.remote(EngineActor).options(**options).remote(served, self.role, start)

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
                index = waiting.pop(reference)
                if again := self._check_started(index, reference):
                    waiting[again] = index
            if waiting and time.monotonic() > deadline:
                limit = self.settings.start_timeout_s
                raise RunError(f"{self.role}: {len(waiting)} engine(s) were not ready after {limit:.0f} s")
            if waiting and time.monotonic() - told >= TELL_EVERY_S:
                told = time.monotonic()
                log.info("%s: %d of %d engines are ready", self.role, len(self.actors) - len(waiting), len(self.actors))

    def _check_started(self, index: int, reference: Any) -> Any | None:
        """None where an engine has started, else what to wait for. Raises RunError where it did not start."""
        fault: str | None = None
        told: dict[str, Any] = {}
        try:
            told = ray.get(reference) or {}
            fault = told.get("fault")
        except (ray.exceptions.RayActorError, ray.exceptions.ActorUnschedulableError) as error:
            lines = str(error).strip().splitlines()
            fault = f"its process died: {lines[-1].strip() if lines else type(error).__name__}"
        if fault is None and not told.get("built"):  # its process died, and Ray started another
            self.deaths[index] += 1
            if self.deaths[index] < STARTS:
                log.warning("%s: engine %d died while it started: once more", self.role, index)
                self.actors[index].revive.remote(self.model)
                return self.actors[index].ready.remote()
            fault = f"its process died {STARTS} times"
        if fault:
            raise RunError(f"{self.role}: engine {index} of {self.settings.model} did not start: {fault}")
        if told["seconds"] >= sum(self.parts.values()):
            self.parts = told["parts"]
        self.started.append(self.actors[index])
        return None

    def reload(self, model: str) -> None:
        """Load the weights of `model` into the living engines, and forget their prefix caches.

        Raises InputError when the folder is not there, RunError when an engine could not: then close the pool.
        """
        require_model(model, f"{self.role}.model")
        started = time.monotonic()
        self._load("reload", model)
        self.settings = self.settings.of_checkpoint(model)
        seconds = time.monotonic() - started
        log.info("%s: weights of %s loaded into the living engines in %.1f s", self.role, model, seconds)

    def sleep(self) -> None:
        """Give up weights, caches and Ray's GPUs; the processes live on.

        Raises RunError where an engine could not: then close the pool.
        """
        started = time.monotonic()
        self._all("sleep", "could not sleep")
        release(self.claims)
        self._wait_for_gpus(self.settings.gpus_per_replica * len(self.claims))
        self.asleep = True
        log.info("%s: engines of %s sleep (%.1f s)", self.role, self.settings.model, time.monotonic() - started)

    def wake(self, model: str) -> None:
        """Take the same GPUs again, with the weights of `model`.

        Raises InputError when its folder is not there, RunError where the GPUs are others now, or an engine could not:
        then close the pool.
        """
        if self.settings.kind == "vllm":
            require_model(model, f"{self.role}.model")
        started = time.monotonic()
        places = [one.place for one in self.claims]
        each, timeout_s, cpus = self.settings.gpus_per_replica, self.settings.start_timeout_s, self.settings.cpus
        taken = claim(each, len(places), timeout_s, [place.node for place in places], cpus)
        same = matched(places, taken)
        if same is None:
            release(taken)
            raise RunError(f"{self.role}: its GPUs are not the ones that it slept on")
        self.claims, self.asleep = same, False
        self._load("wake", model)
        self.settings = self.settings.of_checkpoint(model) if model != self.settings.model else self.settings
        log.info("%s: engines woke with %s in %.1f s", self.role, model, time.monotonic() - started)

    def _load(self, method: str, model: str) -> None:
        self._all(method, f"{model} could not be loaded", self._named(model))

    def _named(self, model: str) -> str:
        return absolute(model) if self.settings.kind == "vllm" else model

    def _all(self, method: str, failed: str, *arguments: Any) -> None:
        """Call a method of every engine. Raises RunError with the cause in one line."""
        try:
            calls = [getattr(actor, method).remote(*arguments) for actor in self.actors]
            ray.get(calls, timeout=self.settings.start_timeout_s)
        except (ray.exceptions.RayError, TimeoutError) as fault:
            lines = str(fault).strip().splitlines()
            raise RunError(f"{self.role}: {failed}: {lines[-1] if lines else fault!r}") from fault

    def stats(self) -> list[dict[str, Any]]:
        """The counts of each replica that answers; `first_answer`: Unix time of its first unit with these weights.

        One whose node is gone has no process, and may wait for another for long: nobody waits for it.
        """
        return list(self._answers({i: actor.stats.remote() for i, actor in enumerate(self.actors)}).values())

    def _answers(self, calls: dict[int, Any]) -> dict[int, Any]:
        """What engines answer to calls, by the index of the engine; those that do not answer soon are left out."""
        if calls:
            ray.wait(list(calls.values()), num_returns=len(calls), timeout=ASK_S)
        found = {}
        for index, call in calls.items():
            with contextlib.suppress(ray.exceptions.RayError, TimeoutError):
                found[index] = ray.get(call, timeout=0)
        return found

    def newly_busy(self) -> float:
        """Device-seconds in which engines worked since the last question; those that do not answer count as none."""
        share = self.settings.gpus_per_replica or 1 / self.settings.replicas
        calls = {index: actor.busy_seconds.remote() for index, actor in enumerate(self.started)}
        gained = 0.0
        for index, seconds in self._answers(calls).items():
            # An engine that was built anew counts from nothing.
            gained += max(0.0, seconds - self.busy_before.get(index, 0.0)) * share
            self.busy_before[index] = seconds
        return gained

    def close(self) -> None:
        """Close every engine and wait until the cluster has its GPUs back; after a stop, kill them without a wait."""
        taken = 0 if stopped() or self.asleep else self.settings.gpus_per_replica * len(self.actors)
        closing = [] if stopped() else [actor.close.remote() for actor in self.started]
        if closing:
            ray.wait(closing, num_returns=len(closing), timeout=CLOSE_S)
        for actor in self.actors:
            ray.kill(actor)
        if self.claims and not stopped():
            self._wait_for_their_end()
        for group in self.groups:
            remove_placement_group(group)
        if not self.asleep:
            release(self.claims)
        self.actors, self.started, self.groups, self.claims = [], [], [], []
        if taken:
            self._wait_for_gpus(taken)

    def _wait_for_their_end(self) -> None:
        """Ray gives claimed GPUs to others as soon as they are released, whoever still sits on them."""
        ends = [actor.ready.remote() for actor in self.actors]
        ray.wait(ends, num_returns=len(ends), timeout=CLOSE_S)

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
