"""Which pools live: reuse what is equal, reload what has the same shape, close what stands in the way."""

from __future__ import annotations

import logging

import ray

from ray_app.engine.pool import EnginePool
from ray_app.engine.settings import EngineSettings
from ray_app.train.settings import TrainSettings

log = logging.getLogger(__name__)


def same_shape(a: EngineSettings, b: EngineSettings) -> bool:
    """Whether only the weights differ."""
    return a.model_copy(update={"model": b.model}) == b


def room_beside(wanted: EngineSettings, living: list[EngineSettings], gpus: float, cpus: float) -> bool:
    """Whether a pool of `wanted` fits beside the living ones. Pure."""
    pools = [*living, wanted]
    needed_gpus = sum(p.gpus_per_replica * p.replicas for p in pools)
    needed_cpus = sum(p.cpus * p.replicas for p in pools)
    return needed_gpus <= gpus and needed_cpus <= cpus


def trainer_fits(train: TrainSettings, living: list[EngineSettings], gpus: float, cpus: float) -> bool:
    """Whether the trainer's workers fit beside the living pools. Pure."""
    taken_gpus = sum(p.gpus_per_replica * p.replicas for p in living)
    taken_cpus = sum(p.cpus * p.replicas for p in living)
    needed = train.workers if train.use_gpu else 0
    return taken_gpus + needed <= gpus and taken_cpus + train.workers * train.cpus_per_worker <= cpus


class PoolManager:
    """The living pools of one run."""

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id
        self.pools: list[EnginePool] = []

    def get(self, role: str, settings: EngineSettings) -> EnginePool:
        """A living pool with these settings: the same one again, reloaded, or started."""
        total = ray.cluster_resources()
        gpus, cpus = total.get("GPU", 0), total.get("CPU", 0)
        settings = settings.resolved(gpus)
        for pool in self.pools:
            if pool.settings == settings:
                return pool
        for pool in self.pools:
            if settings.kind == "vllm" and same_shape(pool.settings, settings):
                pool.reload(settings.model)
                return pool
        if not room_beside(settings, [pool.settings for pool in self.pools], gpus, cpus):
            self._close_all(f"{role} needs their resources")
        pool = EnginePool(settings, role, self.run_id).start()
        self.pools.append(pool)
        return pool

    def release_for_training(self, train: TrainSettings) -> None:
        """Close the pools unless the trainer fits beside them; the log says which and why."""
        if not self.pools:
            return
        total = ray.cluster_resources()
        living = [pool.settings for pool in self.pools]
        if trainer_fits(train, living, total.get("GPU", 0), total.get("CPU", 0)):
            log.info("training runs beside the living engines: both fit")
        else:
            self._close_all("training needs their resources")

    def close(self) -> None:
        """Close every pool."""
        self._close_all("the run ends")

    def _close_all(self, why: str) -> None:
        for pool in self.pools:
            log.info("%s: engines close: %s", pool.role, why)
            pool.close()
        self.pools = []
