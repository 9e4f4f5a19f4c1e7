"""Ray Train around the workers: placement, restarts, environment."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import ray

from ray_app.base.stores import filesystem, is_remote
from ray_app.errors import InputError, RunError, last_line
from ray_app.train.job import RAY_RUN, Job
from ray_app.train.room import telling_of_room, wanted_by
from ray_app.train.settings import TrainSettings
from ray_app.train.state import clear_fault, read_fault

T = TypeVar("T")
START_RETRIES = 2
START_TIMEOUT_S = 600  # nodes of an autoscaled cluster take minutes to come; Ray Train gives up after one by default
START_VARIABLE = "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"


@dataclass(frozen=True)
class Placement:
    """What Ray sets aside for each worker, and which nodes they are to be on (a label selector each; None: any)."""

    resources: dict[str, float]
    nodes: list[dict[str, str]] | None = None


def run_workers(job: Job) -> None:
    """One Ray Train run over all workers, up to `job.stop_at`. Raises RunError when it fails for good."""
    from ray.train.torch import TorchConfig

    settings = job.settings
    torch_config = TorchConfig(backend=backend_of(settings), timeout_s=int(settings.timeout_s))
    trainer = made_trainer(settings, job.work_dir, {"job": job}, torch_config, Placement(wanted_by(settings)))
    controllers = stoppable_by_us(trainer)
    clear_fault(job.work_dir)
    try:
        explained(job, trainer.fit)
    except KeyboardInterrupt:
        for controller in controllers:
            ray.kill(controller)  # its workers end with it
        raise


def explained(job: Job, work: Callable[[], T]) -> T:
    """What the work of a Ray Train run returns; what its workers have noted of a fault is raised as that."""
    limit_s = starts(job.settings) * float(os.environ.get(START_VARIABLE, START_TIMEOUT_S))
    try:
        with telling_of_room(job.settings, limit_s):
            done = work()
    except Exception as fault:
        _raise_known(job.work_dir)
        raise RunError(f"training failed: {last_line(fault)}") from fault
    _raise_known(job.work_dir)
    return done


def starts(settings: TrainSettings) -> int:
    """How often workers are tried to be started, each time for `START_TIMEOUT_S`, before a training fails."""
    return settings.max_failures + START_RETRIES + 1


def made_trainer(
    settings: TrainSettings, storage: str, told: dict[str, Any], torch_config: Any, placement: Placement
) -> Any:
    """Ray Train for these settings, not started yet. `storage`: where it keeps what it knows of its checkpoints; `told`
    is what every worker is given.
    """
    from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    from ray_app.train import worker

    os.environ.setdefault(START_VARIABLE, str(START_TIMEOUT_S))
    # An actor that would tell workers of a preemption to come; they save by steps, and do not ask.
    os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
    # How often it asks the workers how they are: at its 2 s their end is noticed a second late, in the mean.
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5")
    trainer = TorchTrainer(
        worker.run,
        train_loop_config=told,
        torch_config=torch_config,
        scaling_config=ScalingConfig(
            num_workers=settings.workers,
            use_gpu="GPU" in placement.resources,
            resources_per_worker=placement.resources,
            label_selector=placement.nodes,
        ),
        run_config=RunConfig(
            name=RAY_RUN,
            **kept_at(storage),
            checkpoint_config=CheckpointConfig(num_to_keep=2),
            failure_config=FailureConfig(
                max_failures=settings.max_failures,
                # Ray Train waits for missing nodes for ever by default, one start time-out after the other.
                controller_failure_limit=starts(settings) - 1,
            ),
            worker_runtime_env={"env_vars": worker_environment(settings)},
        ),
    )
    leave_out(trainer)
    return trainer


def kept_at(uri: str) -> dict[str, Any]:
    """Where Ray Train keeps what it saves. A store is reached by fsspec, as everything else of a run is: PyArrow's own
    way to it has other settings, and other tries.
    """
    if not is_remote(uri):
        return {"storage_path": uri}
    from pyarrow.fs import FSSpecHandler, PyFileSystem

    fs, path = filesystem(uri)
    return {"storage_path": path, "storage_filesystem": PyFileSystem(FSSpecHandler(fs))}


def leave_out(trainer: Any) -> None:
    """Take away two actors that Ray Train starts with every run. One manages its datasets: there are none. The other is
    its cleaner, a detached one that is to free the resources of a controller that died while its job goes on: here the
    job ends then, which frees them too, and the cleaner may stay behind on the cluster (seen on a busy machine).
    """
    from ray.train.v2._internal.callbacks.datasets import DatasetsCallback
    from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback

    usual, unwanted = trainer._create_default_callbacks, (DatasetsCallback, PlacementGroupCleanerCallback)
    trainer._create_default_callbacks = lambda: [one for one in usual() if not isinstance(one, unwanted)]


def backend_of(settings: TrainSettings) -> str:
    """Of PyTorch's process group."""
    return "nccl" if settings.use_gpu else "gloo"


def stoppable_by_us(trainer: Any) -> list[Any]:
    """Make a stop of Ray Train ours alone; returns a list that gets the controller's handle once there is one. Ray
    Train's own handler of SIGINT swallows the first Ctrl-C.
    """
    controllers: list[Any] = []
    trainer._register_sigint_handler = controllers.append
    return controllers


def _raise_known(work_dir: str) -> None:
    known = read_fault(work_dir)
    if known is not None:
        kind, message = known
        raise InputError(message) if kind == "input" else RunError(f"training failed: {message}")


def worker_environment(settings: TrainSettings, driver: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Environment of the workers. Keys and tokens come from the cluster's own environment, never through here."""
    environment = {"TOKENIZERS_PARALLELISM": "false"}
    for name in ("HF_HUB_OFFLINE", "HF_HOME"):
        if name in driver:
            environment[name] = driver[name]
    if settings.use_gpu:
        # Gathered layers and activations of changing size would otherwise fragment the GPU's memory.
        environment["PYTORCH_CUDA_ALLOC_CONF"] = driver.get("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")
    else:
        threads = str(max(1, int(settings.cpus_per_worker)))
        environment |= {"DS_ACCELERATOR": "cpu", "LOCAL_SIZE": str(settings.workers), "OMP_NUM_THREADS": threads}
        # Else glibc keeps freed activations: a worker of the demo grew from 3 to 4.5 GiB.
        environment |= {"MALLOC_ARENA_MAX": "2", "MALLOC_MMAP_THRESHOLD_": str(2**20)}
    return environment
