"""Training workers that start while the engines still judge: processes and imports are there when the rows are.

    standby = Standby.start(settings.train, "…/seed", None, storage="…/train_state", nodes=seats(ray.nodes(), …))
    …                       the engines judge, and give their GPUs back
    standby.build(job)      claims the GPUs, and has the model built; the rows are still chosen
    standby.did(job)        has the job done, whole

Until its model is built a worker holds no GPU, neither in Ray's account nor in its memory.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import uuid
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, wait
from dataclasses import replace
from typing import Any

import ray

from ray_app.errors import RunError, first_line
from ray_app.system.background import in_background
from ray_app.system.claims import VISIBLE, Claim, claim, release
from ray_app.train.job import RAY_RUN, Job
from ray_app.train.launch import Placement, backend_of, explained, made_trainer
from ray_app.train.settings import TrainSettings
from ray_app.train.state import adopt, clear_fault, read_fault

log = logging.getLogger(__name__)
FOLDER = "standby-"  # begins the name of Ray Train's own folder: which fit it is to be is not known yet
NODE = "ray.io/node-id"
CLAIM_S, EARLY_CLAIM_S = 120.0, 10.0  # for GPUs; for what can be done without
LOOK_S, END_S = 5.0, 5.0  # between two looks at the nodes; for a run of Ray Train that was ended
HARDLY_A_CPU = 0.001  # a worker must ask for something
MOVED = "moved"  # a kind of fault (state.write_fault)


class Moved(RunError):
    """A worker was started again on a node where none of its group's GPUs is."""


class Standby:
    """Workers that wait. They do one job, or are closed."""

    def __init__(
        self, settings: TrainSettings, nodes: Sequence[str], folder: str, orders: Any, ended: Future[Any]
    ) -> None:
        self.settings, self.nodes, self.folder, self.orders, self.ended = settings, nodes, folder, orders, ended
        self.adopted = False
        self.early: Job | None = None  # whose model they build, or have built
        self.claims: list[Claim] = []  # held for it

    @classmethod
    def start(
        cls, settings: TrainSettings, seed_model: str, revision: str | None, storage: str, nodes: Sequence[str]
    ) -> Standby:
        """Start the workers, one for each of `nodes`, in the background. `storage`: the state folder of the training,
        a path that every node sees.
        """
        from ray_app.train.standby_backend import Orders, WaitingConfig

        here = {NODE: ray.get_runtime_context().get_node_id()}
        orders = ray.remote(num_cpus=0, label_selector=here)(Orders).remote()
        config = WaitingConfig(
            backend=backend_of(settings),
            timeout_s=int(settings.timeout_s),
            orders=orders,
            warm=(settings, seed_model, revision),
        )
        folder = f"{storage}/{FOLDER}{uuid.uuid4().hex[:8]}"
        placement = Placement({"CPU": HARDLY_A_CPU}, [{NODE: node} for node in nodes])
        trainer = made_trainer(settings, folder, {"orders": orders}, config, placement)
        log.info("training workers start while the engines judge: %d", settings.workers)
        return cls(settings, nodes, folder, orders, in_background(trainer.fit))

    def build(self, job: Job) -> None:
        """Claim the GPUs and have the model built while the rows of `job` are still chosen: what it says of rows, steps
        and folders counts for nothing yet. Where that cannot be, `did` begins it all.
        """
        from ray_app.train.standby_backend import Order

        if self.early or self.settings != job.settings or self.ended.done():
            return
        try:
            self.claims = self._claimed(EARLY_CLAIM_S)
            ray.get(self.orders.give.remote(Order(job, gpus_by_node(self.claims), early=True)))
        except (RunError, ray.exceptions.RayError) as fault:
            log.info("the model is not built before its rows are there: %s", first_line(fault))
            self._release()
            return
        self.early = job

    def did(self, job: Job) -> bool:
        """Have the job done; False where these workers cannot, and others are to. Raises what `run_workers` raises."""
        other = self.early is not None and not same_model(self.early, job)
        if self.settings != job.settings or other or self.ended.done():
            self.close()
            return False
        try:
            self.claims = self.claims if self.early else self._claimed(CLAIM_S)
            self._claim_cpus()
            job = replace(job, adopted=adopt(job.work_dir, f"{self.folder}/{RAY_RUN}"))
        except (RunError, FileExistsError) as fault:
            log.warning("the training workers that waited cannot be used (%s): others start", first_line(fault))
            self.close()
            return False
        self.adopted = True
        clear_fault(job.work_dir)
        try:
            done = explained(job, lambda: self._done(job))
        except RunError:
            if (read_fault(job.work_dir) or ("",))[0] != MOVED:
                raise
            log.warning("the training workers that waited lost their GPUs: others start")
            return False
        except KeyboardInterrupt:
            self._kill()
            raise
        finally:
            self._release()
        if not done:
            log.warning("a node of the training workers that waited is gone: others start, from the last saved state")
        return done

    def _claimed(self, patience_s: float) -> list[Claim]:
        """A GPU for every worker. No CPUs: while rows are chosen and encoded, Ray's tasks may need them all."""
        return claim(1, len(self.nodes), patience_s, self.nodes) if self.settings.use_gpu else []

    def _claim_cpus(self) -> None:
        """So that Ray gives them to nobody else meanwhile. Workers compute without that as well."""
        if not self.settings.use_gpu:
            return
        try:
            self.claims += claim(0, len(self.nodes), EARLY_CLAIM_S, self.nodes, self.settings.cpus_per_worker)
        except RunError as fault:
            log.info("training's CPUs are not set aside in Ray's account: %s", first_line(fault))

    def _release(self) -> None:
        held, self.claims = self.claims, []
        release(held)

    def _done(self, job: Job) -> bool:
        """Whether they have done it. Once a node of theirs is gone they never can: Ray Train starts every later group
        on the same nodes, by their names, and would wait for the lost one until it gives up. So it is ended then.
        """
        from ray_app.train.standby_backend import Order

        ray.get(self.orders.give.remote(Order(job, gpus_by_node(self.claims))))
        while not wait([self.ended], timeout=LOOK_S).done:
            if any_gone(self.nodes, ray.nodes()):
                self._end()
                return False
        self.ended.result()
        return True

    def close(self) -> None:
        """End the workers, if they wait still, and remove their folder, if no fit has it."""
        if not self.ended.done():
            with contextlib.suppress(ray.exceptions.RayError):
                self.orders.give.remote(None)
            self._end()
        self._release()
        if not self.adopted:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _end(self) -> None:
        self._kill()
        wait([self.ended], timeout=END_S)

    def _kill(self) -> None:
        with contextlib.suppress(ray.exceptions.RayError):
            if controller := ray.get(self.orders.who_waits.remote(), timeout=5):
                ray.kill(controller)  # its workers end with it


def same_model(early: Job, job: Job) -> bool:
    """Whether the model that was built for one is that of the other. Pure."""
    names = ("settings", "seed_model", "revision", "shape", "seed")
    return all(getattr(early, name) == getattr(job, name) for name in names)


def seats(nodes: Sequence[Mapping[str, Any]], settings: TrainSettings) -> list[str] | None:
    """The node of every worker, from `ray.nodes()`: those of more GPUs first, one worker a GPU (else as the processors
    allow). None where they are too few: a node that is to come has no name yet. Pure.
    """
    unit, each = ("GPU", 1.0) if settings.use_gpu else ("CPU", settings.cpus_per_worker)
    living = [(node["Resources"].get(unit, 0.0), node["NodeID"]) for node in nodes if node["Alive"]]
    found = [name for amount, name in sorted(living, key=lambda one: -one[0]) for _ in range(int(amount // each))]
    return found[: settings.workers] if len(found) >= settings.workers else None


def any_gone(names: Sequence[str], nodes: Sequence[Mapping[str, Any]]) -> bool:
    """Whether one of the nodes of these names is no living node of `ray.nodes()`. Pure."""
    return not set(names) <= {node["NodeID"] for node in nodes if node["Alive"]}


def gpus_by_node(claims: Sequence[Claim]) -> dict[str, tuple[str, ...]]:
    """The GPUs of each node's workers, in the order of the claims. Pure."""
    found: dict[str, tuple[str, ...]] = {}
    for one in claims:
        found[one.place.node] = (*found.get(one.place.node, ()), *one.place.gpus)
    return found


def device_index(gpu: str, visible: str | None) -> int:
    """PyTorch's number of a GPU that Ray names, in a process that sees those of `visible` (CUDA_VISIBLE_DEVICES; None:
    every GPU of the node). Pure.
    """
    return visible.split(",").index(gpu) if visible else int(gpu)


def own_device(gpus: Mapping[str, tuple[str, ...]], node: str, local_rank: int) -> int | None:
    """The number of a worker's GPU among those that were claimed; None where its node has none for it."""
    own = gpus.get(node, ())
    return device_index(own[local_rank], os.environ.get(VISIBLE)) if local_rank < len(own) else None
