"""FlashAttention 4 over packed rows, as operators that torch.compile does not look into.

Its kernels (package flash-attn-4, in the `gpu` extra) are compiled at their first call, and use instructions
that only Hopper and Blackwell have; PyTorch's variable-length kernel is FlashAttention 2. The two functions called here
are the ones PyTorch itself builds on (torch/nn/attention/_fa4.py).
"""

from __future__ import annotations

import importlib.util
from typing import Any

import torch

CAPABILITIES = (9, 10)  # Hopper, Blackwell


def available() -> bool:
    """Whether the package is installed and this process's GPU can run it."""
    try:
        found = importlib.util.find_spec("flash_attn.cute") is not None
    except ModuleNotFoundError:
        found = False
    return found and torch.cuda.is_available() and torch.cuda.get_device_capability()[0] in CAPABILITIES


@torch.library.custom_op("ste::flash4", mutates_args=())
def flash4(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, starts: torch.Tensor, longest: int, scale: float, window: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Causal attention inside each row: q (tokens, heads, dim), k and v with as many heads or fewer, `starts`
    (rows + 1,) int32. `window` > 0 looks back at so many tokens only. Returns (tokens, heads, dim) and the log-sum-exp
    (heads, tokens).
    """
    from flash_attn.cute.interface import _flash_attn_fwd

    out, lse = _flash_attn_fwd(q, k, v, return_lse=True, **_options(starts, longest, scale, window))[:2]
    return out, lse


@torch.library.custom_op("ste::flash4_backward", mutates_args=())
def flash4_backward(
    grad: torch.Tensor,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    out: torch.Tensor,
    lse: torch.Tensor,
    starts: torch.Tensor,
    longest: int,
    scale: float,
    window: int,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients of q, k and v."""
    from flash_attn.cute.interface import _flash_attn_bwd

    # Left to itself it would give each gradient the strides of its tensor, which the compiler may have changed.
    dq, dk, dv = (torch.empty(t.shape, dtype=t.dtype, device=t.device) for t in (q, k, v))
    options = _options(starts, longest, scale, window)
    _flash_attn_bwd(q, k, v, out, grad.contiguous(), lse, dq=dq, dk=dk, dv=dv, **options)
    return dq, dk, dv


def _options(starts: torch.Tensor, longest: int, scale: float, window: int) -> dict[str, Any]:
    options = {"softmax_scale": scale, "causal": True, "cu_seqlens_q": starts, "cu_seqlens_k": starts}
    options |= {"max_seqlen_q": longest, "max_seqlen_k": longest}
    return options | ({"window_size_left": window - 1, "window_size_right": 0} if window > 0 else {})


@flash4.register_fake
def _(q: torch.Tensor, *_: Any) -> tuple[torch.Tensor, torch.Tensor]:
    return q.new_empty(q.shape), q.new_empty((q.shape[1], q.shape[0]), dtype=torch.float32)


@flash4_backward.register_fake
def _(grad: torch.Tensor, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *_: Any) -> tuple[torch.Tensor, ...]:
    return q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[torch.Tensor, torch.Tensor]) -> None:
    q, k, v, starts, *ctx.numbers = inputs
    ctx.save_for_backward(q, k, v, *output, starts)


def _differentiate(ctx: Any, grad: torch.Tensor, _: Any) -> tuple[Any, ...]:
    gradients = flash4_backward(grad, *ctx.saved_tensors, *ctx.numbers)
    return *gradients, None, None, None, None


flash4.register_autograd(_differentiate, setup_context=_save)
