"""A pool: named engine actors of equal settings. It frees all it took when it closes, on errors too.

with EnginePool(settings, "judge", run_id).start() as pool: …

On GPUs a pool can sleep while others use them: it then holds no weights, no caches and none of Ray's GPUs, but its
processes live on, with what they compiled and captured, so that waking takes seconds where a start takes minutes.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections import Counter
from typing import Any

import ray
from ray.util.placement_group import PlacementGroup, remove_placement_group
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from ray_app.base.model_files import absolute, require_model
from ray_app.engine.actor import EngineActor
from ray_app.engine.base import Start
from ray_app.engine.lost_nodes import answers, failure, where_now
from ray_app.engine.room import require_room
from ray_app.engine.settings import EngineSettings
from ray_app.engine.vllm_engine import environment
from ray_app.errors import RunError, last_line
from ray_app.system.claims import Claim, across_nodes, claim, matched, release, wait_for_gpus, what_is_free
from ray_app.system.stopping import stopped

log = logging.getLogger(__name__)
TELL_EVERY_S, CLOSE_S = 30.0, 15.0
STARTS = 3  # of an engine whose process dies while it starts


class EnginePool:
    """`replicas` engines of one model. Driver-side handle; `actors` are called by the clients. After the loss of a node
    they are fewer than the settings say, until the next start.

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
        self.nodes: dict[Any, str] = {}  # of each that has started: where it was last seen (Ray's id)
        self.groups: list[PlacementGroup] = []
        self.claims: list[Claim] = []  # of the GPUs, one an engine; none where Ray counts them with the actor
        self.busy_before: dict[Any, float] = {}  # seconds of each engine at the last question
        self.deaths: Counter[int] = Counter()  # of each engine while it started
        self.parts: dict[str, float] = {}  # seconds of the slowest engine's start, by what it did

    @property
    def model(self) -> str:
        """The weights served, by a name that holds in every process of the cluster."""
        return self._named(self.settings.model)

    @property
    def running(self) -> EngineSettings:
        """The settings with as many replicas as there are."""
        return self.settings.model_copy(update={"replicas": len(self.actors)})

    def start(self) -> EnginePool:
        """Start every replica and wait for all; where nodes have died, as many as the others take.

        Raises InputError for a model folder that is not there or more than the cluster has, before anything is
        started, and RunError with the engine's own cause in one line, after everything taken is free again.
        """
        started = time.monotonic()
        if self.settings.kind == "vllm":
            require_model(self.settings.model, f"{self.role}.model")
        wanted, count = self.settings.replicas, require_room(self.role, self.settings, self.may_grow)
        if count < wanted:
            log.warning("%s: %d of %d engines start: a node has died, others have no room", self.role, count, wanted)
        try:
            if self._claims_gpus:
                gpus, timeout_s = self.settings.gpus_per_replica, self.settings.start_timeout_s
                self.claims = claim(gpus, count, timeout_s, cpus=self.settings.cpus)
            # The first of engines that share a GPU compiles alone; the others then find what it compiled.
            for many in (1, count) if self.settings.replicas_per_gpu > 1 else (count,):
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
            group, where = across_nodes(settings.tensor_parallel, settings.cpus)
            self.groups.append(group)
            options |= {"num_gpus": 0, "scheduling_strategy": where}
        served = settings.model_copy(update={"model": self.base or self.model})
        start = Start(sleeps=self.sleeps, without_weights=bool(self.base), gpus=gpus, run=self.run_id)
        return ray.remote(EngineActor).options(**options).remote(served, self.role, start)

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
                ready = f"{len(self.actors) - len(waiting)} of {len(self.actors)} engines are ready"
                log.info("%s: %s; %s", self.role, ready, what_is_free())  # some may wait for room

    def _check_started(self, index: int, reference: Any) -> Any | None:
        """None where an engine has started, else what to wait for. Raises RunError where it did not start."""
        fault: str | None = None
        told: dict[str, Any] = {}
        try:
            told = ray.get(reference) or {}
            fault = told.get("fault")
        except (ray.exceptions.RayActorError, ray.exceptions.ActorUnschedulableError) as error:
            fault = f"its process died: {last_line(error)}"
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
        self.nodes[self.actors[index]] = told["node"]
        return None

    def reload(self, model: str) -> None:
        """Load the weights of `model` into the living engines, and forget their prefix caches. Engines that have gone
        with their nodes are dropped, as in `sleep` and `wake`.

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
        wait_for_gpus(self.role, self.settings.gpus_per_replica * len(self.claims))
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
        self.living()
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
        """Call a method of every engine that is left. Raises RunError with the cause in one line."""
        calls = {getattr(actor, method).remote(*arguments): actor for actor in self.living()}
        if cause := failure(calls, self.living, self.settings.start_timeout_s):
            raise RunError(f"{self.role}: {failed}: {cause}")

    def living(self) -> list[Any]:
        """The actors, without those that have gone for good with their nodes: they are dropped, and what is claimed for
        them is released. Raises RunError where none is left: then close the pool.
        """
        self.nodes = where_now(self.nodes)
        lost = [index for index, actor in enumerate(self.actors) if actor not in self.nodes]
        if not lost:
            return self.actors
        if len(lost) == len(self.actors):
            raise RunError(f"{self.role}: the nodes of all its engines have died")
        for index in lost:
            ray.kill(self.actors[index])
        for group in self.groups and [self.groups[index] for index in lost]:
            remove_placement_group(group)
        if self.claims and not self.asleep:  # Ray moves such a claim to other GPUs, and keeps them for nobody
            release(self.claims[index] for index in lost)
        kept = [index for index in range(len(self.actors)) if index not in lost]
        self.actors = [self.actors[index] for index in kept]
        self.groups = self.groups and [self.groups[index] for index in kept]
        self.claims = self.claims and [self.claims[index] for index in kept]
        self.started = [actor for actor in self.started if actor in self.nodes]
        many, wanted = len(self.actors), self.settings.replicas
        log.warning("%s: %d of %d engines go on: a node has died", self.role, many, wanted)
        return self.actors

    def stats(self) -> list[dict[str, Any]]:
        """Counts of each replica that answers; `first_answer` is the Unix time of its first unit with these weights."""
        return list(answers(self.started, "stats").values())

    def newly_busy(self) -> float:
        """Device-seconds in which engines worked since the last question; those that do not answer count as none."""
        share = self.settings.gpus_per_replica or 1 / max(1, len(self.actors))
        gained = 0.0
        for actor, seconds in answers(self.started, "busy_seconds").items():
            # An engine that was built anew counts from nothing.
            gained += max(0.0, seconds - self.busy_before.get(actor, 0.0)) * share
            self.busy_before[actor] = seconds
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
        self.actors, self.started, self.groups, self.claims, self.nodes = [], [], [], [], {}
        if taken:
            wait_for_gpus(self.role, taken)

    def _wait_for_their_end(self) -> None:
        """Ray gives claimed GPUs to others as soon as they are released, whoever still sits on them."""
        # Asked once: of an actor that has ended Ray would say that it asks again, at the end of every run.
        ends = [actor.ready.options(max_task_retries=0).remote() for actor in self.actors]
        ray.wait(ends, num_returns=len(ends), timeout=CLOSE_S)

    def __enter__(self) -> EnginePool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
