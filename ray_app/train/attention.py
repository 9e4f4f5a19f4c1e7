"""Attention over packed rows: several rows laid end to end in one line, none of which sees another.

`register()` makes our kernels known to transformers under `ste_fa4`, `ste_varlen` and `ste_sdpa`; a model built with
one of these names needs no mask. Where the rows begin comes with the call (`cu_seqlens`, see collate.py). transformers'
own flex and FlashAttention kernels find the rows from their position ids.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention

from ray_app.train import flash4
from ray_app.train.settings import TrainSettings

PREFIX = "ste_"
OURS = (PREFIX + "fa4", PREFIX + "varlen", PREFIX + "sdpa")
HALF_ONLY = ("ste_varlen", "ste_fa4", "flash_attention_2", "flash_attention_3")  # kernels that take no fp32
# What models hand on to every attention and no kernel needs: where it stands elsewhere, or means nothing in training.
HARMLESS = frozenset(
    {"position_ids", "use_cache", "cache_position", "is_causal", "output_attentions", "output_hidden_states"}
    | {"output_router_logits", "return_dict", "past_key_values", "cu_seqlens", "longest", "row_lengths"}
)


def choose(settings: TrainSettings) -> str:
    """transformers' `attn_implementation` for the setting `train.attention`. FlashAttention takes no fp32."""
    name, batching = settings.attention, settings.batching
    if name == "auto":
        if batching == "bucketed":
            return "sdpa"
        flash = settings.use_gpu and settings.in_bf16
        name = "sdpa" if not flash else "flash_attention_4" if flash4.available() else "varlen"
    if name == "flash_attention_4":
        return PREFIX + "fa4"
    if name == "flex":
        return "flex_attention"
    if name == "cudnn":
        name = "sdpa"
    if name == "varlen" or (name == "sdpa" and batching == "packed"):
        return PREFIX + name
    return name


def register() -> None:
    """Make the packed kernels known to transformers. Its mask builder skips names it has no mask for."""
    from transformers import AttentionInterface

    AttentionInterface.register(PREFIX + "varlen", varlen)
    AttentionInterface.register(PREFIX + "fa4", flash_attention_4)
    AttentionInterface.register(PREFIX + "sdpa", per_row)


def restrict_sdpa(name: str) -> None:
    """Hold SDPA to cuDNN's kernels where asked: PyTorch prefers FlashAttention 2, which Hopper outruns."""
    if name == "cudnn":
        torch.backends.cuda.enable_cudnn_sdp(True)
        torch.backends.cuda.enable_flash_sdp(False)
        torch.backends.cuda.enable_mem_efficient_sdp(False)
        torch.backends.cuda.enable_math_sdp(False)


def refuse(kernel: str, arguments: Mapping[str, Any]) -> None:
    """Raises NotImplementedError for an argument that means something which the kernel does not do (attention sinks,
    soft caps, dropout): left out in silence it would train another model.
    """
    for name, value in arguments.items():
        if name not in HARMLESS and value is not None and not (name == "dropout" and not value):
            raise NotImplementedError(
                f"{kernel.removeprefix(PREFIX)} has no {name}, which this model's attention needs"
            )


@functools.cache
def varlen_kernel() -> tuple[Any, frozenset[str]]:
    """PyTorch's function and the names of its arguments: the one for fewer key heads, and the one that says "causal",
    changed between PyTorch 2.10 and 2.13. Imported where it is used: it brings the compiler along, for seconds.
    """
    from torch.nn.attention.varlen import varlen_attn

    return varlen_attn, frozenset(inspect.signature(varlen_attn).parameters)


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
    **others: Any,
) -> tuple[torch.Tensor, None]:
    """PyTorch's variable-length FlashAttention; needs no flash-attn package. Query (1, heads, tokens, dim).

    Returns (1, tokens, heads, dim). Keys and values may have fewer heads (grouped queries).
    """
    kernel, known = varlen_kernel()
    refuse("varlen", others)
    q, k, v = (tensor.squeeze(0).transpose(0, 1) for tensor in (query, key, value))
    options: dict[str, Any] = {"scale": scaling}
    if "enable_gqa" in known:
        options["enable_gqa"] = q.shape[1] != k.shape[1]
    if "window_size" in known:
        options["window_size"] = (-1, 0) if sliding_window is None else (sliding_window - 1, 0)
    elif sliding_window is not None and longest > sliding_window:
        raise NotImplementedError(f"varlen of this PyTorch has no sliding window (here {sliding_window} of {longest})")
    else:
        options["is_causal"] = True
    out: Any = kernel(q, k, v, cu_seqlens, cu_seqlens, longest, longest, **options)
    return out.unsqueeze(0), None


def flash_attention_4(
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
    **others: Any,
) -> tuple[torch.Tensor, None]:
    """FlashAttention 4. Query (1, heads, tokens, dim); returns (1, tokens, heads, dim)."""
    refuse("flash_attention_4", others)
    q, k, v = (tensor.squeeze(0).transpose(0, 1) for tensor in (query, key, value))
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    out, _lse = flash4.flash4(q, k, v, cu_seqlens, longest, scale, sliding_window or 0)
    return out.unsqueeze(0), None


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
    **others: Any,
) -> tuple[torch.Tensor, None]:
    """Causal SDPA, row by row: Σ length² work and, but for rows longer than the window, no mask, so that SDPA can take
    its fast kernels.

    Rows of equal length go in one call. Query (1, heads, tokens, dim); returns (1, tokens, heads, dim).
    """
    refuse("sdpa", others)
    outs = []
    start = 0
    for count, length in _runs(row_lengths):
        stop = start + count * length
        q, k, v = (_rows(tensor[0, :, start:stop], count, length) for tensor in (query, key, value))
        grouped = q.shape[1] != k.shape[1]
        mask = _window(length, sliding_window, q.device)
        out = scaled_dot_product_attention(
            q, k, v, attn_mask=mask, is_causal=mask is None, scale=scaling, enable_gqa=grouped
        )
        outs.append(out.transpose(1, 2).reshape(count * length, *out.shape[1::2]))
        start = stop
    return torch.cat(outs).unsqueeze(0), None


def _window(length: int, window: int | None, device: torch.device) -> torch.Tensor | None:
    """(length, length), True where a token sees another: itself and the `window` - 1 before it. None: all before it."""
    if window is None or length <= window:
        return None
    causal = torch.ones(length, length, dtype=torch.bool, device=device).tril()
    return causal.triu(1 - window)


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
