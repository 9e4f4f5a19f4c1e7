"""What a training worker does before it computes: DeepSpeed, threads, its device, the process group."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import torch

from ray_app.system import scheduling
from ray_app.train import attention
from ray_app.train.settings import TrainSettings
from ray_app.train.standby import Moved, own_device


def connect(settings: TrainSettings, claimed: Mapping[str, tuple[str, ...]] | None = None) -> None:
    """Threads, device, and DeepSpeed on the process group Ray Train made. `claimed`: each node's GPUs, where they are
    not the worker's own in Ray's account. Raises Moved where none of them is on its node.
    """
    deepspeed = import_deepspeed()
    if settings.use_gpu:
        torch.cuda.set_device(device_of(claimed))
        attention.restrict_sdpa(settings.attention)
        backend = "nccl"
    else:
        scheduling.compute()
        torch.set_num_threads(max(1, int(settings.cpus_per_worker)))
        # Its shared-memory collectives are C++ that DeepSpeed would compile now; gloo does without.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
        backend = "gloo"
    limit = timedelta(seconds=settings.timeout_s)
    deepspeed.init_distributed(backend, auto_mpi_discovery=False, timeout=limit, verbose=False)


def import_deepspeed() -> Any:
    """DeepSpeed asks of every optimizer whether it is its Muon, which is compiled where it is imported: PyTorch's whole
    compiler would be imported, seconds of every worker's start, for a function that nothing here calls.
    """
    import deepspeed
    import deepspeed.ops

    switch, before = "TORCHDYNAMO_DISABLE", os.environ.get("TORCHDYNAMO_DISABLE")
    os.environ[switch] = "1"
    try:
        import deepspeed.runtime.zero.muon.muon_optimizer
    finally:
        if before is None:
            del os.environ[switch]
        else:
            os.environ[switch] = before
    return deepspeed


def device_of(claimed: Mapping[str, tuple[str, ...]] | None) -> torch.device:
    """The GPU that this worker computes on."""
    import ray
    import ray.train.torch

    if claimed is None:
        device: torch.device = ray.train.torch.get_device()
        return device
    node, rank = ray.get_runtime_context().get_node_id(), ray.train.get_context().get_local_rank()
    index = own_device(claimed, node, rank)
    if index is None:
        raise Moved(f"no GPU is claimed on node {node} for its training worker {rank}")
    return torch.device("cuda", index)
