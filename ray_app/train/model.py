"""The trained model: a transformers causal LM, sharded while it is built, with our attention, head and recompute."""

from __future__ import annotations

from typing import Any

import torch

from ray_app.errors import InputError
from ray_app.train import attention
from ray_app.train.collate import Batch
from ray_app.train.head import fuse_head
from ray_app.train.settings import TrainSettings


class JudgeModel(torch.nn.Module):
    """A causal LM whose forward returns losses: NLL of every target token of a batch, or their sum."""

    def __init__(self, lm: Any) -> None:
        super().__init__()
        self.lm = lm
        self.size = sum(getattr(p, "ds_numel", p.numel()) for p in lm.parameters())  # parameters, whole

    def forward(self, *, batch: Batch, summed: bool) -> torch.Tensor:
        """Scalar fp32 sum, or (targets,) fp32."""
        lm = base_lm(self.lm)
        hidden = lm.base_model(
            input_ids=batch.input_ids, position_ids=batch.position_ids, use_cache=False, **batch.attention
        ).last_hidden_state
        picked = hidden.reshape(-1, hidden.shape[-1])[batch.positions]
        # By keyword: DeepSpeed's hooks look at positional arguments only, and expect tensors there.
        nll: torch.Tensor = lm.get_output_embeddings()(picked, batch.targets, summed=summed)
        return nll


def base_lm(model: Any) -> Any:
    """The transformers model inside a PEFT wrapper, or the model itself."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def build(seed_model: str, settings: TrainSettings) -> JudgeModel:
    """Load the seed model. Under ZeRO-3 (an HfDeepSpeedConfig is alive) every parameter is sharded as it is made."""
    from transformers import AutoConfig, AutoModelForCausalLM

    attention.register()
    config = AutoConfig.from_pretrained(seed_model)
    name = attention.choose(settings.attention, use_gpu=settings.use_gpu, batching=settings.batching)
    lm = AutoModelForCausalLM.from_pretrained(
        seed_model,
        config=config,
        dtype=torch.bfloat16 if settings.bf16 else torch.float32,
        attn_implementation=name,
    )
    prepare(lm, settings)
    return JudgeModel(lm)


def prepare(lm: Any, settings: TrainSettings) -> None:
    """Fit head, kernels and recompute to a loaded model."""
    require_plain_logits(lm.config)
    lm.config.use_cache = False
    kernels = chosen_kernels(settings)
    if kernels == "liger":
        from liger_kernel.transformers import _apply_liger_kernel_to_instance

        # The loss is fused in our head; cross_entropy switches would patch the model's own forward, which we skip.
        _apply_liger_kernel_to_instance(model=lm, fused_linear_cross_entropy=False, cross_entropy=False)
    fuse_head(
        lm.get_output_embeddings(),
        kernels=kernels,
        softcap=getattr(lm.config, "final_logit_softcapping", None),
    )
    _recompute(lm, settings)
    if settings.zero.block_granularity and settings.zero.stage == 3:
        from deepspeed.utils import set_z3_leaf_modules

        set_z3_leaf_modules(lm, [type(block) for block in decoder_blocks(lm)[:1]])


def chosen_kernels(settings: TrainSettings) -> str:
    if settings.kernels == "auto":
        return "liger" if settings.use_gpu else "torch"
    return settings.kernels


def require_plain_logits(config: Any) -> None:
    """Raises InputError for models that scale their logits: our fused head would train something else."""
    for name in ("logit_scale", "logits_scaling"):
        if getattr(config, name, None) not in (None, 1, 1.0):
            raise InputError(f"judge.model: models with {name} (here {config.model_type}) cannot be trained yet")


def decoder_blocks(lm: Any) -> list[torch.nn.Module]:
    """The transformer blocks, in order."""
    return list(base_lm(lm).base_model.layers)


def _recompute(lm: Any, settings: TrainSettings) -> None:
    if settings.recompute == "none":
        return
    lm.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    if settings.recompute == "selective":
        for number, block in enumerate(decoder_blocks(lm)):
            block.gradient_checkpointing = number % settings.recompute_every == 0
