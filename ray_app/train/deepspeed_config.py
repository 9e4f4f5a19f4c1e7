"""DeepSpeed's JSON configuration from our settings. Pure. Field names: deepspeed/runtime/zero/config.py (0.19)."""

from __future__ import annotations

from typing import Any

from ray_app.train.settings import OffloadSettings, TrainSettings, ZeroSettings

CPU_BUCKET = 10_000_000


def deepspeed_config(settings: TrainSettings) -> dict[str, Any]:
    """The dict for `deepspeed.initialize`. The learning rate is set every step by the loop (no DeepSpeed scheduler)."""
    return {
        "train_micro_batch_size_per_gpu": 1,  # a micro-batch is one packed line; its size is in tokens
        "gradient_accumulation_steps": 1,  # boundaries are set by the loop: steps differ in micro-batches
        "gradient_clipping": settings.clip,
        "bf16": {"enabled": settings.in_bf16},
        "data_types": {"grad_accum_dtype": _grad_dtype(settings)},
        "zero_optimization": _zero(settings.zero, settings.use_gpu),
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "optimizer": _optimizer(settings),
        "steps_per_print": 10**9,
        "wall_clock_breakdown": False,
    }


def _grad_dtype(settings: TrainSettings) -> str:
    if not settings.in_bf16:
        return "fp32"
    if settings.grad_dtype != "auto":
        return settings.grad_dtype
    return "bf16" if settings.accumulation == 1 and settings.batch_rows is None else "fp32"


def _zero(zero: ZeroSettings, use_gpu: bool) -> dict[str, Any]:
    # CPU workers have no streams to overlap on, and buckets sized for NVLink would cost them gigabytes.
    limit = 2**63 if use_gpu else CPU_BUCKET
    config: dict[str, Any] = {
        "stage": zero.stage,
        "overlap_comm": zero.overlap_comm and use_gpu,
        "contiguous_gradients": True,
        "reduce_bucket_size": min(zero.reduce_bucket, limit),
    }
    if zero.stage == 3:
        config |= {
            "stage3_prefetch_bucket_size": min(zero.prefetch_bucket, limit),
            "stage3_param_persistence_threshold": zero.persistence_threshold,
            "stage3_max_live_parameters": zero.max_live,
            "stage3_max_reuse_distance": zero.max_reuse_distance,
            "zero_hpz_partition_size": zero.hpz_size,
        }
    return config | _offload(zero.offload)


def _offload(offload: OffloadSettings) -> dict[str, Any]:
    config: dict[str, Any] = {}
    for key, device in (("offload_optimizer", offload.optimizer), ("offload_param", offload.parameters)):
        if device != "none":
            config[key] = {"device": device, "pin_memory": offload.pin_memory}
            if device == "nvme":
                config[key]["nvme_path"] = offload.nvme_path
    return config


def _optimizer(settings: TrainSettings) -> dict[str, Any]:
    parameters: dict[str, Any] = {
        "lr": settings.lr,
        "betas": list(settings.betas),
        "eps": settings.eps,
        "weight_decay": settings.weight_decay,
    }
    if settings.optimizer == "torch":
        # One multi-tensor kernel a shard, like DeepSpeed's FusedAdam, with nothing to compile.
        parameters |= {"torch_adam": True, "fused": True}
    return {"type": "AdamW", "params": parameters}
