"""Tensor names of an export are the hub's: transformers keeps some models otherwise in memory (experts in one tensor).

Its own conversion is turned back, shard by shard, as `save_pretrained` does it (transformers.core_model_loading).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

import torch


def on_hub(lm: Any, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Tensors of a model by the names that its files have on the hub; an expert's are views of what held them all."""
    from transformers.core_model_loading import revert_weight_conversion

    found: dict[str, torch.Tensor] = revert_weight_conversion(lm, tensors)
    return {name: tensor.contiguous() for name, tensor in found.items()}


def shapes_on_hub(lm: Any, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the same, without any data."""
    empty = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    return {name: tuple(tensor.shape) for name, tensor in on_hub(lm, empty).items()}


def names_fault(lm: Any, exported: Collection[str], seed: Collection[str]) -> str | None:
    """Why an export would not be what the seed's files are; None where the names agree.

    Tied weights may be missing, and what transformers ignores when it loads the seed (rotary frequencies of old files,
    layers for multi-token prediction).
    """
    extra = sorted(set(exported) - set(seed) - _tied(lm))
    if extra:
        return f"its export would have a tensor {extra[0]} that its files do not have ({len(extra)} in all)"
    ignored = [*(getattr(lm, "_keys_to_ignore_on_load_unexpected", None) or ()), r"rotary_emb\.inv_freq$"]
    missing = [
        name
        for name in sorted(set(seed) - set(exported) - _tied(lm))
        if not any(re.search(pattern, name) for pattern in ignored)
    ]
    return f"its export would lack {missing[0]} of its files ({len(missing)} in all)" if missing else None


def _tied(lm: Any) -> set[str]:
    """Names that share the tensor of another."""
    tied: Mapping[str, str] = lm.all_tied_weights_keys  # of this model's config, not of its class
    return set(tied) | set(tied.values())
