"""Low-rank adapters (PEFT) on a sharded model, and their merge into the weights that are exported."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ray_app.errors import InputError
from ray_app.train.export import stored_buffers
from ray_app.train.settings import LoraSettings

ADAPTER = "default"  # PEFT's name of the only adapter


def add_adapters(lm: Any, settings: LoraSettings, seed: int) -> Any:
    """Freeze the model and add adapters; returns PEFT's wrapper. Works on sharded (ZeRO-3) and 4-bit weights."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(seed % 2**63)  # the same start on every rank and after a restart
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=list(settings.targets) or "all-linear",
        task_type="CAUSAL_LM",
        bias="none",
    )
    wrapped = get_peft_model(lm, config, autocast_adapter_dtype=False)
    # Recomputed blocks need an input that asks for gradients, and the frozen embedding gives none.
    lm.enable_input_require_grads()
    return wrapped


def refuse_output_layer(lm: Any, settings: LoraSettings) -> None:
    """Raises InputError where `lora.targets` name the output layer: its loss is fused with its weight, past any
    adapter, which would be exported untrained.
    """
    head = lm.get_output_embeddings()
    name = next((name for name, module in lm.named_modules() if module is head), "")
    for target in settings.targets:
        if name and (name == target or name.endswith(f".{target}")):
            raise InputError(f"train.lora.targets: {target} is the output layer, which cannot be adapted: leave it out")


@dataclass(frozen=True)
class Merged:
    """One exported tensor of an adapted model: its name in the plain model, and the layer it comes from."""

    name: str
    parameter: Any
    layer: Any | None  # PEFT's layer, where an adapter adds to this weight


def merged_tensors(lm: Any) -> list[Merged]:
    """The tensors of the plain model inside an adapted one, in order, adapters left out."""
    from peft.tuners.lora import LoraLayer

    layers = {name: module for name, module in lm.named_modules() if isinstance(module, LoraLayer)}
    found = []
    for name, parameter in lm.named_parameters():
        if ".lora_" in name:
            continue
        owner, _, leaf = name.rpartition(".")
        plain = owner.removesuffix(".base_layer")
        adapted = plain != owner and leaf == "weight"
        found.append(Merged(f"{plain}.{leaf}", parameter, layers[plain] if adapted else None))
    buffers = {name.replace(".base_layer.", "."): buffer for name, buffer in stored_buffers(lm).items()}
    return found + [Merged(name, buffer, None) for name, buffer in buffers.items()]


def gathered_merged(
    tensors: Sequence[Merged], shards: Sequence[Sequence[str]], rank: int, dtype: torch.dtype
) -> Iterator[dict[str, torch.Tensor]]:
    """Like `gather.gathered`, with every adapter merged into its weight. All ranks must iterate."""
    import deepspeed

    by_name = {tensor.name: tensor for tensor in tensors}
    for names in shards:
        copies: dict[str, torch.Tensor] = {}
        for name in names:
            tensor = by_name[name]
            needed = [tensor.parameter, *(_factors(tensor.layer) if tensor.layer is not None else [])]
            with deepspeed.zero.GatheredParameters(needed), torch.no_grad():
                if rank == 0:
                    kept = dtype if isinstance(tensor.parameter, torch.nn.Parameter) else tensor.parameter.dtype
                    copies[name] = _merge(tensor).to("cpu", kept, copy=True).contiguous()
        yield copies


def save_adapter(wrapped: Any, folder: Path, rank: int) -> None:
    """Write the adapter alone, as PEFT loads it (`PeftModel.from_pretrained`). All ranks must call this."""
    import deepspeed
    from peft import get_peft_model_state_dict
    from safetensors.torch import save_file

    factors = [parameter for name, parameter in wrapped.named_parameters() if ".lora_" in name]
    with deepspeed.zero.GatheredParameters(factors):
        if rank == 0:
            state = get_peft_model_state_dict(wrapped, adapter_name=ADAPTER, save_embedding_layers=False)
            whole = {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in state.items()}
            folder.mkdir()
            save_file(whole, folder / "adapter_model.safetensors", metadata={"format": "pt"})
            wrapped.peft_config[ADAPTER].save_pretrained(folder)


def _factors(layer: Any) -> list[Any]:
    return [layer.lora_A[ADAPTER].weight, layer.lora_B[ADAPTER].weight]


def _merge(tensor: Merged) -> torch.Tensor:
    weight = _plain(tensor.parameter)
    if tensor.layer is None:
        return weight
    # In fp32: a bf16 sum would lose adapters that are small beside their weight.
    down, up = (factor.detach().float() for factor in _factors(tensor.layer))
    scale: float = tensor.layer.scaling[ADAPTER]
    merged: torch.Tensor = weight.float() + scale * (up @ down)
    return merged


def _plain(parameter: Any) -> torch.Tensor:
    """A weight as an ordinary tensor, 4-bit ones dequantised."""
    if hasattr(parameter, "quant_state"):
        from bitsandbytes.functional import dequantize_4bit

        restored: torch.Tensor = dequantize_4bit(parameter.data, parameter.quant_state)
        return restored
    plain: torch.Tensor = parameter.detach()
    return plain


def merged_shape(tensor: Merged) -> tuple[int, ...]:
    """Shape of the exported tensor (a 4-bit weight is stored flat, its layer knows better)."""
    if tensor.layer is not None:
        return (tensor.layer.out_features, tensor.layer.in_features)
    return tuple(getattr(tensor.parameter, "ds_shape", tensor.parameter.shape))
