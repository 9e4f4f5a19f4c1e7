"""Settings that cannot work, found before any GPU is taken. Every error names its setting."""

from __future__ import annotations

import importlib.util
import logging
from dataclasses import dataclass

from ray_app.errors import InputError
from ray_app.train.settings import TrainSettings

log = logging.getLogger(__name__)
TRACKERS = {"tensorboard": "tensorboardX", "wandb": "wandb", "mlflow": "mlflow"}  # the package behind each
GPU_ATTENTION = ("varlen", "cudnn", "flash_attention_2", "flash_attention_3", "flash_attention_4")


@dataclass(frozen=True)
class ModelFacts:
    """What a check needs of a model's config.json."""

    max_positions: int
    layers: int
    attention_heads: int
    dtype: str = "bfloat16"


def check(
    settings: TrainSettings,
    model: ModelFacts | None = None,
    cluster: dict[str, float] | None = None,
    may_grow: bool = False,
) -> None:
    """Raise InputError naming the first setting that cannot work.

    `model` is None while the model's config is unknown; `cluster` is `ray.cluster_resources()`, None before Ray runs.
    What a cluster that may grow has too little of is only a warning: it may have scaled down.
    """
    _batch(settings)
    _precision(settings)
    _zero(settings)
    _tracking(settings)
    if model is not None:
        _model(settings, model)
    if cluster is not None:
        _cluster(settings, cluster, may_grow)


def _fail(setting: str, why: str) -> None:
    raise InputError(f"train.{setting}: {why}")


def _batch(s: TrainSettings) -> None:
    if s.lr_min > s.lr:
        _fail("lr_min", f"{s.lr_min:g} is above train.lr {s.lr:g}")
    rows_of_unit = 2 if s.recipe == "dpo" else 1
    need = rows_of_unit * s.sequence_length
    if s.tokens_per_batch < need:
        _fail(
            "tokens_per_batch",
            f"{s.tokens_per_batch} holds no row of {rows_of_unit} × {s.sequence_length} tokens",
        )
    if s.batch_rows is not None and s.accumulation != 1:
        _fail("accumulation", "has no effect beside train.batch_rows; leave one of them out")
    if s.selection.when == "between" and not s.checkpoint_every:
        _fail("checkpoint_every", "train.selection.when between needs checkpoints: set it above 0")
    if s.compile == "inductor" and s.batching == "packed" and s.attention in ("sdpa", "cudnn"):
        _fail("compile", f"with packed rows, attention {s.attention} would compile anew for every batch: use varlen")
    if s.batching == "bucketed" and s.attention in ("varlen", "flex", "flash_attention_4"):
        _fail("attention", f"{s.attention} is for packed batches; with train.batching bucketed use sdpa or auto")


def _precision(s: TrainSettings) -> None:
    if not s.use_gpu:
        for setting, value in (
            ("attention", s.attention),
            ("kernels", s.kernels),
            ("optimizer", s.optimizer),
        ):
            if value in (*GPU_ATTENTION, "liger", "deepspeed"):
                _fail(setting, f"{value} needs GPUs (train.use_gpu)")
    if s.attention in GPU_ATTENTION and s.dtype == "float32":
        _fail("attention", f"{s.attention} needs train.dtype bfloat16")
    if s.lora is not None and s.lora.quantize:
        _qlora(s)


def _qlora(s: TrainSettings) -> None:
    assert s.lora is not None
    trained_in = ("bfloat16", "float32") if s.dtype == "auto" else (s.dtype,)
    if s.zero.stage == 3 and s.lora.quant_storage not in trained_in:
        _fail(
            "lora.quant_storage",
            "ZeRO-3 shards 4-bit weights only when bnb_4bit_quant_storage is the training dtype "
            f"{' or '.join(trained_in)}, not {s.lora.quant_storage}",
        )
    if importlib.util.find_spec("bitsandbytes") is None:
        _fail("lora.quantize", "4-bit training needs bitsandbytes: pip install 'self-taught-evaluators[qlora]'")


def _zero(s: TrainSettings) -> None:
    offload = s.zero.offload
    if offload.parameters != "none" and s.zero.stage != 3:
        _fail("zero.offload.parameters", "needs train.zero.stage 3")
    if "nvme" in (offload.optimizer, offload.parameters) and not offload.nvme_path:
        _fail("zero.offload.nvme_path", "is needed for offload to nvme")
    if s.zero.hpz_size > 1 and s.workers % s.zero.hpz_size:
        _fail(
            "zero.hpz_size",
            f"{s.workers} workers (train.workers) do not divide into groups of {s.zero.hpz_size}",
        )
    if s.zero.hpz_size > 1 and s.zero.stage != 3:
        _fail("zero.hpz_size", "needs train.zero.stage 3")


def _tracking(s: TrainSettings) -> None:
    for kind in s.tracking.to:
        package = TRACKERS[kind]
        if importlib.util.find_spec(package) is None:
            _fail("tracking.to", f"{kind} is not installed (pip install {package})")


def _model(s: TrainSettings, model: ModelFacts) -> None:
    if s.sequence_length > model.max_positions:
        _fail("sequence_length", f"{s.sequence_length} is above the model's {model.max_positions} positions")


def _cluster(s: TrainSettings, cluster: dict[str, float], may_grow: bool) -> None:
    gpus, cpus = cluster.get("GPU", 0), cluster.get("CPU", 0)
    tell = _wait if may_grow else _fail
    if s.use_gpu and s.workers > gpus:
        tell("workers", f"{s.workers} workers need {s.workers} GPUs, the cluster has {gpus:g}")
    if s.workers * s.cpus_per_worker > cpus:
        tell(
            "cpus_per_worker",
            f"{s.workers} × {s.cpus_per_worker:g} CPUs are wanted, the cluster has {cpus:g}",
        )


def _wait(setting: str, why: str) -> None:
    log.warning("train.%s: %s; training waits for it to grow", setting, why)
