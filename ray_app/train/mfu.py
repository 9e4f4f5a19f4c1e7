"""Model FLOPs of a training step, and the share of the chip's peak they are (MFU). Pure.

6 FLOPs a parameter and token, embeddings included and experts that a token is not sent to left out, plus causal
attention; recomputed activations do not count
(PaLM, arXiv 2204.02311, appendix B; halved for the causal mask).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

H100_BF16_FLOPS = 989e12  # dense bf16, H100 and H200 SXM data sheets


def train_flops(parameters: int, row_lengths: Iterable[int], *, layers: int, attention_width: int) -> float:
    """FLOPs of forward and backward over rows of these lengths. `attention_width` is heads × head size."""
    total = 0.0
    for length in row_lengths:
        total += 6.0 * parameters * length + 6.0 * layers * attention_width * float(length) ** 2
    return total


def shape_of(config: Any) -> dict[str, int]:
    """`layers` and `attention_width` of a transformers config."""
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return {"layers": config.num_hidden_layers, "attention_width": config.num_attention_heads * head}


def mfu(flops: float, seconds: float, gpus: int, peak: float = H100_BF16_FLOPS) -> float:
    """FLOPs all GPUs did together in `seconds`, over what they could have done."""
    return flops / (seconds * gpus * peak)
