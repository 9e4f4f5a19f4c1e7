"""The output layer and its loss in one module call, on the positions that carry a loss only.

The logits of a judge's prompt are never computed, and those of its judgment never all at once: 128,256 logits in
fp32 for 8,192 tokens would be 4.2 GB. One call of the layer keeps ZeRO-3 simple: its weight is gathered for this call.
"""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

import torch
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

CHUNK = 1024  # positions whose logits exist at once

Head = Callable[[torch.Tensor, torch.Tensor, bool], torch.Tensor]


def output_scale(config: Any) -> float:
    """What a family multiplies its logits by: Cohere's `logit_scale`, Falcon-H1's `lm_head_multiplier`, and the inverse
    of Granite's `logits_scaling`. The self-test finds a family that has another one.
    """
    part = config.get_text_config(decoder=True)
    scale = 1.0
    for name in ("logit_scale", "lm_head_multiplier"):
        scale *= getattr(part, name, None) or 1.0
    return scale / (getattr(part, "logits_scaling", None) or 1.0)


def fuse_head(layer: torch.nn.Linear, *, kernels: str, softcap: float | None = None) -> None:
    """Give the output layer a forward (hidden (n, width), targets (n,), summed) → NLL: scalar, or (n,) in fp32."""
    fused = liger_nll if kernels == "liger" else chunked_nll

    def forward(self: Any, hidden: torch.Tensor, targets: torch.Tensor, summed: bool) -> torch.Tensor:
        return fused(hidden, self.weight, self.bias, targets, summed, softcap)

    layer.forward = types.MethodType(forward, layer)  # type: ignore[method-assign]  # of this one layer


def chunked_nll(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    targets: torch.Tensor,
    summed: bool,
    softcap: float | None,
) -> torch.Tensor:
    """Negative log-likelihoods, `CHUNK` positions at a time; the logits are recomputed in the backward pass."""

    def part(h: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        logits = torch.nn.functional.linear(h, weight, bias).float()
        if softcap is not None:
            logits = softcap * torch.tanh(logits / softcap)
        return cross_entropy(logits, t, reduction="none")

    pieces = [
        checkpoint(part, h, t, use_reentrant=False)
        for h, t in zip(torch.split(hidden, CHUNK), torch.split(targets, CHUNK), strict=True)
    ]
    nll = torch.cat(pieces)
    return nll.sum() if summed else nll


def liger_nll(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    targets: torch.Tensor,
    summed: bool,
    softcap: float | None,
) -> torch.Tensor:
    """Liger's fused linear cross-entropy: the gradient is made in the forward pass, chunk by chunk."""
    if not summed:
        return chunked_nll(hidden, weight, bias, targets, summed, softcap)
    from liger_kernel.transformers.functional import liger_fused_linear_cross_entropy

    loss: torch.Tensor = liger_fused_linear_cross_entropy(
        hidden,
        weight,
        targets,
        bias=bias,
        reduction="sum",
        softcap=softcap,
        accum_dtype=torch.float32,
        chunk_mem_const=4,  # four times Liger's chunk: still small beside the activations, and fewer passes
    )
    return loss
