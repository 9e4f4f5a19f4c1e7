"""Attention over packed rows: several rows laid end to end in one line, none of which sees another.

`register()` makes our kernels known to transformers under `ste_varlen`, `ste_sdpa` and `ste_flex`; a model built
with one of these names needs no mask. Where the rows begin comes with the call (`cu_seqlens`, see collate.py).
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention

PREFIX = "ste_"


def choose(name: str, *, use_gpu: bool, batching: str) -> str:
    """transformers' `attn_implementation` for the setting `train.attention`."""
    if name == "auto":
        if batching == "bucketed":
            return "sdpa"
        name = "varlen" if use_gpu else "sdpa"
    if name in ("varlen", "flex") or (name == "sdpa" and batching == "packed"):
        return PREFIX + name
    return name


def register() -> None:
    """Make the packed kernels known to transformers. Its mask builder skips names it has no mask for."""
    from transformers import AttentionInterface

    AttentionInterface.register(PREFIX + "varlen", varlen)
    AttentionInterface.register(PREFIX + "sdpa", per_row)


def varlen(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    scaling: float | None = None,
    cu_seqlens: torch.Tensor,
    longest: int,
    sliding_window: int | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """PyTorch's variable-length FlashAttention; needs no flash-attn package. Query (1, heads, tokens, dim).

    Returns (1, tokens, heads, dim). Keys and values may have fewer heads (grouped queries).
    """
    window = (-1, 0) if sliding_window is None else (sliding_window - 1, 0)
    q, k, v = (tensor.squeeze(0).transpose(0, 1) for tensor in (query, key, value))
    out = _flash_varlen(q, k, v, cu_seqlens, longest, scaling, window)
    return out.unsqueeze(0), None


def _flash_varlen(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    cu_seqlens: torch.Tensor,
    longest: int,
    scale: float | None,
    window: tuple[int, int],
) -> torch.Tensor:
    import inspect

    from torch.nn.attention.varlen import varlen_attn

    known = inspect.signature(varlen_attn).parameters
    options: dict[str, Any] = {"scale": scale}
    # The argument that allows fewer key heads, and the one that says "causal", came and went between releases.
    if "enable_gqa" in known:
        options["enable_gqa"] = q.shape[1] != k.shape[1]
    if "window_size" in known:
        options["window_size"] = window
    else:
        options["is_causal"] = True
    out: torch.Tensor = varlen_attn(q, k, v, cu_seqlens, cu_seqlens, longest, longest, **options)
    return out


def per_row(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    scaling: float | None = None,
    row_lengths: tuple[int, ...],
    sliding_window: int | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Causal SDPA, row by row: Σ length² work and no mask, so that SDPA can take its fast kernels.

    Rows of equal length go in one call. Query (1, heads, tokens, dim); returns (1, tokens, heads, dim).
    """
    if sliding_window is not None and max(row_lengths) > sliding_window:
        raise ValueError(f"rows of {max(row_lengths)} tokens exceed the model's sliding window {sliding_window}")
    outs = []
    start = 0
    for count, length in _runs(row_lengths):
        stop = start + count * length
        q, k, v = (_rows(tensor[0, :, start:stop], count, length) for tensor in (query, key, value))
        grouped = q.shape[1] != k.shape[1]
        out = scaled_dot_product_attention(q, k, v, is_causal=True, scale=scaling, enable_gqa=grouped)
        outs.append(out.transpose(1, 2).reshape(count * length, *out.shape[1::2]))
        start = stop
    return torch.cat(outs).unsqueeze(0), None


def _rows(tensor: torch.Tensor, count: int, length: int) -> torch.Tensor:
    """(heads, count × length, dim) as (count, heads, length, dim)."""
    heads, _, dim = tensor.shape
    return tensor.reshape(heads, count, length, dim).transpose(0, 1)


def _runs(lengths: tuple[int, ...]) -> list[tuple[int, int]]:
    """Neighbouring rows of equal length, as (how many, length)."""
    runs: list[tuple[int, int]] = []
    for length in lengths:
        if runs and runs[-1][1] == length:
            runs[-1] = (runs[-1][0] + 1, length)
        else:
            runs.append((1, length))
    return runs
