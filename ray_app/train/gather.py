"""Collective reads of a ZeRO-3 model's full weights, a few gigabytes at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from ray_app.train.export import stored_buffers


def gathered(model: Any, shards: Sequence[Sequence[str]], rank: int) -> Iterator[dict[str, torch.Tensor]]:
    """Yield each group of parameters, whole, on the CPU of rank 0; empty dicts elsewhere. All ranks must iterate."""
    import deepspeed

    parameters, buffers = dict(model.named_parameters()), stored_buffers(model)
    for names in shards:
        group = [parameters[name] for name in names if name in parameters]
        with deepspeed.zero.GatheredParameters(group):
            copies = {
                name: parameter.detach().to("cpu", copy=True).contiguous()
                for name, parameter in ((name, parameters.get(name, buffers.get(name))) for name in names)
                if rank == 0 and parameter is not None
            }
        yield copies
