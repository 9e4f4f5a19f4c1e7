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


def unknown_names(lm: Any, exported: Collection[str], seed: Collection[str]) -> list[str]:
    """Tensors an export would have and the seed's files do not: what serves the seed would not know them. Tied weights
    may stand under either name, and old files leave out the first part of their names (`transformer.`).
    """
    known = {_short(lm, name) for name in seed}
    return sorted(name for name in set(exported) - _tied(lm) if _short(lm, name) not in known)


def left_out_names(lm: Any, exported: Collection[str], seed: Collection[str]) -> list[str]:
    """Tensors of the seed's files an export would not have (a value head). Not told: what transformers ignores when it
    loads the seed (rotary frequencies of old files, layers for multi-token prediction).
    """
    kept = {_short(lm, name) for name in exported}
    ignored = [*(getattr(lm, "_keys_to_ignore_on_load_unexpected", None) or ()), r"rotary_emb\.inv_freq$"]
    return [
        name
        for name in sorted(set(seed) - _tied(lm))
        if _short(lm, name) not in kept and not any(re.search(pattern, name) for pattern in ignored)
    ]


def _short(lm: Any, name: str) -> str:
    return name.removeprefix(f"{lm.base_model_prefix}.")


def _tied(lm: Any) -> set[str]:
    """Names that share the tensor of another."""
    tied: Mapping[str, str] = lm.all_tied_weights_keys  # of this model's config, not of its class
    return set(tied) | set(tied.values())
