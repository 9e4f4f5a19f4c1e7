"""The trained model: a transformers causal LM, sharded while it is built, with our attention, head and recompute."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch

from ray_app.train import attention
from ray_app.train.collate import Batch
from ray_app.train.experts import active_parameters, balancing_loss, balancing_weight
from ray_app.train.head import fuse_head
from ray_app.train.load import can_fill, empty_model, fill, weight_files
from ray_app.train.settings import TrainSettings


class JudgeModel(torch.nn.Module):
    """A causal LM whose forward returns losses: NLL of every target token of a batch, or their sum."""

    def __init__(self, lm: Any, scale: float = 1.0) -> None:
        super().__init__()
        self.lm, self.scale = lm, scale  # `scale`: of the logits (`head.output_scale`)
        config = base_lm(lm).config
        sizes = ((name, getattr(p, "ds_numel", p.numel())) for name, p in lm.named_parameters())
        self.size = active_parameters(sizes, config)  # parameters a token passes, of the whole model
        self.balancing = balancing_weight(config)

    def forward(self, *, batch: Batch, summed: bool) -> torch.Tensor:
        """Scalar fp32 sum, or (targets,) fp32."""
        lm = base_lm(self.lm)
        balanced = {"output_router_logits": True} if self.balancing and summed else {}
        out = lm.base_model(
            input_ids=batch.input_ids, position_ids=batch.position_ids, use_cache=False, **balanced, **batch.attention
        )
        hidden = out.last_hidden_state
        picked = hidden.reshape(-1, hidden.shape[-1])[batch.positions]
        if self.scale != 1.0:
            picked = picked * self.scale  # before the output layer: it is linear, and has no bias in these families
        # By keyword: DeepSpeed's hooks look at positional arguments only, and expect tensors there.
        nll: torch.Tensor = lm.get_output_embeddings()(picked, batch.targets, summed=summed)
        if balanced:  # by target, as the rest of the sum
            nll = nll + self.balancing * len(batch.targets) * balancing_loss(lm, out.router_logits)
        return nll


def torch_dtype(settings: TrainSettings) -> torch.dtype:
    """The format of weights and activations."""
    return torch.bfloat16 if settings.in_bf16 else torch.float32


def base_lm(model: Any) -> Any:
    """The transformers model inside a PEFT wrapper, or the model itself."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def build(
    seed_model: str,
    settings: TrainSettings,
    deepspeed_config: Mapping[str, Any],
    *,
    weights: bool,
    revision: str | None = None,
) -> Any:
    """The seed model, sharded while it is built (ZeRO-3). `weights` False leaves them for a checkpoint to fill."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(seed_model, revision=revision)
    import_class(config)
    attention.register()
    name = attention.choose(settings)
    dtype = torch_dtype(settings)
    if settings.lora is not None and settings.lora.quantize:
        return quantized(seed_model, revision, settings, name)
    files = weight_files(seed_model, revision)
    if files is not None:
        lm = empty_model(config, dtype, name, deepspeed_config if settings.zero.stage == 3 else None)
        if can_fill(lm, files) and plain_shards(settings):
            if weights:
                fill(lm, files)
            return lm
        del lm
    return _through_transformers(seed_model, revision, config, dtype, name, deepspeed_config)


def import_class(config: Any) -> None:
    """Import a model's class before zero.Init: it wraps the constructors of classes that are made while it is open, and
    when it closes takes away what was wrapped around them since. Experts would lose what transformers adds to theirs
    (`transformers.integrations.moe`), and fail at the first step.
    """
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

    if type(config) in MODEL_FOR_CAUSAL_LM_MAPPING:
        MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]


def plain_shards(settings: TrainSettings) -> bool:
    """Whether a parameter's shard is one plain tensor that can be written to."""
    return settings.zero.hpz_size == 1 and settings.zero.offload.parameters != "nvme"


def _through_transformers(
    seed_model: str,
    revision: str | None,
    config: Any,
    dtype: torch.dtype,
    attention_name: str,
    deepspeed_config: Mapping[str, Any],
) -> Any:
    from transformers import AutoModelForCausalLM
    from transformers.integrations import HfDeepSpeedConfig

    # Must live until the model is built: transformers holds only a weak reference, and shards only while it lives.
    alive = HfDeepSpeedConfig(dict(deepspeed_config))
    lm = AutoModelForCausalLM.from_pretrained(
        seed_model, revision=revision, config=config, dtype=dtype, attn_implementation=attention_name
    )
    del alive
    return lm


def random_model(config: Any, settings: TrainSettings, deepspeed_config: Mapping[str, Any]) -> Any:
    """A model of this config with random weights (benchmarks)."""
    from transformers import AutoModelForCausalLM
    from transformers.integrations import HfDeepSpeedConfig

    import_class(config)
    attention.register()
    name = attention.choose(settings)
    alive = HfDeepSpeedConfig(dict(deepspeed_config)) if settings.zero.stage == 3 else None
    dtype = torch_dtype(settings)
    lm = AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation=name)
    del alive
    return lm


def quantized(seed_model: str, revision: str | None, settings: TrainSettings, attention_name: str) -> Any:
    """The seed model in 4-bit NF4 (QLoRA). ZeRO-3 shards it, because its storage has the training dtype."""
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    assert settings.lora is not None
    dtype = torch_dtype(settings)
    quantization = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
        bnb_4bit_quant_storage=getattr(torch, settings.lora.quant_storage),
    )
    return AutoModelForCausalLM.from_pretrained(
        seed_model,
        revision=revision,
        dtype=dtype,
        quantization_config=quantization,
        attn_implementation=attention_name,
        device_map={"": torch.cuda.current_device() if settings.use_gpu else "cpu"},
    )


def prepare(lm: Any, settings: TrainSettings, leaves: bool = True) -> None:
    """Fit head, kernels, recompute and compilation to a loaded model. `leaves`: tell DeepSpeed of its blocks."""
    lm = base_lm(lm)
    lm.config.use_cache = False
    kernels = chosen_kernels(settings)
    # Compiled blocks get their fused kernels from the compiler.
    if kernels == "liger" and settings.compile == "none":
        from liger_kernel.transformers import _apply_liger_kernel_to_instance

        # The loss is fused in our head; cross_entropy switches would patch the model's own forward, which we skip.
        _apply_liger_kernel_to_instance(model=lm, fused_linear_cross_entropy=False, cross_entropy=False)
    fuse_head(
        lm.get_output_embeddings(),
        kernels=kernels,
        softcap=getattr(lm.config.get_text_config(decoder=True), "final_logit_softcapping", None),
    )
    _recompute(lm, settings)
    if settings.compile != "none":
        _compile(lm, settings.compile)
    if leaves and settings.zero.block_granularity and settings.zero.stage == 3:
        from deepspeed.utils import set_z3_leaf_modules

        set_z3_leaf_modules(lm, [type(block) for block in decoder_blocks(lm)[:1]])


def chosen_kernels(settings: TrainSettings) -> str:
    if settings.kernels == "auto":
        return "liger" if settings.use_gpu else "torch"
    return settings.kernels


def fresh_buffers(config: Any) -> dict[str, torch.Tensor]:
    """The buffers that a model computes from its config and no checkpoint holds (rotary frequencies, whatever their
    name), in fp32, by name. Costs no weights: parameters stay on the meta device.
    """
    from accelerate import init_empty_weights
    from transformers import AutoModelForCausalLM
    from transformers.initialization import no_init_weights

    with no_init_weights(), init_empty_weights(include_buffers=False):
        own = copy.deepcopy(config)  # a config keeps the kernel and format of the last model that was made of it
        lm = AutoModelForCausalLM.from_config(own, dtype=torch.float32, attn_implementation="eager")
    stored = set(lm.state_dict())
    return {
        name: buffer
        for name, buffer in lm.named_buffers()
        if name not in stored and buffer.is_floating_point() and buffer.device.type != "meta"
    }


def restore_buffers(model: JudgeModel, fresh: Mapping[str, torch.Tensor], device: torch.device) -> None:
    """Give a model its computed buffers back in fp32, after `deepspeed.initialize`.

    zero.Init and the engine cast them to bf16. At position 4,096 an angle of a rotary embedding is then off by several
    radians, and the trained model would not be the one that the engines run (they keep fp32).
    """
    lm = base_lm(model.lm)
    for name, buffer in fresh.items():
        owner, _, leaf = name.rpartition(".")
        module = lm.get_submodule(owner)
        module._buffers[leaf] = buffer.to(device)


def decoder_blocks(lm: Any) -> list[torch.nn.Module]:
    """The transformer blocks, in order."""
    return list(base_lm(lm).base_model.layers)


def _recompute(lm: Any, settings: TrainSettings) -> None:
    if settings.recompute == "none":
        return
    lm.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    if settings.recompute == "selective":
        for number, block in enumerate(decoder_blocks(lm)):
            setattr(block, "gradient_checkpointing", number % settings.recompute_every == 0)  # noqa: B010 (typed as Module)


def _compile(lm: Any, backend: str) -> None:
    """Compile the forward of every block, inside DeepSpeed's hooks: the hooks stay out of the graph."""
    import torch._dynamo

    torch._dynamo.config.recompile_limit = 64
    for block in decoder_blocks(lm):
        block.forward = torch.compile(block.forward, backend=backend)
