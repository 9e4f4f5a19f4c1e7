"""Collective reads of a ZeRO-3 model's full weights, a few gigabytes at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch


def gathered(model: Any, shards: Sequence[Sequence[str]], rank: int) -> Iterator[dict[str, torch.Tensor]]:
    """Yield each group of parameters, whole, on the CPU of rank 0; empty dicts elsewhere. All ranks must iterate."""
    import deepspeed

    parameters = dict(model.named_parameters())
    for names in shards:
        group = [parameters[name] for name in names]
        with deepspeed.zero.GatheredParameters(group):
            copies = {
                name: parameter.detach().to("cpu", copy=True).contiguous()
                for name, parameter in zip(names, group, strict=True)
                if rank == 0
            }
        yield copies
