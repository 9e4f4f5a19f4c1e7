"""What a training worker can do before its job is known: import what it will need. Nothing here uses a GPU's memory."""

from __future__ import annotations

import logging

from ray_app.train.settings import TrainSettings

log = logging.getLogger(__name__)


def warm(settings: TrainSettings, seed_model: str, revision: str | None) -> None:
    """Import what `worker.Worker` needs for this model. A fault is no fault yet: the job itself meets it, and tells."""
    try:
        _import_all(settings, seed_model, revision)
    except Exception as fault:
        log.info("a waiting training worker could not prepare: %s", fault)


def _import_all(settings: TrainSettings, seed_model: str, revision: str | None) -> None:
    from transformers import AutoConfig

    from ray_app.train.attention import varlen_kernel
    from ray_app.train.connect import import_deepspeed
    from ray_app.train.model import chosen_kernels, fresh_buffers

    import_deepspeed()
    if settings.use_gpu:
        varlen_kernel()
    fresh_buffers(AutoConfig.from_pretrained(seed_model, revision=revision))  # its class, and accelerate
    if chosen_kernels(settings) == "liger":
        import liger_kernel.transformers  # noqa: F401  # so that it is there
    if settings.lora is not None:
        import peft  # noqa: F401  # so that it is there
