"""Packed attention sees its own row only, and equals attention over rows one by one."""

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from ray_app.train.attention import choose, per_row
from ray_app.train.settings import TrainSettings


@pytest.mark.parametrize("lengths", [(7,), (3, 9, 4), (5, 5, 5, 2)])
def test_rows_do_not_see_each_other(lengths):
    torch.manual_seed(0)
    total, heads, kv, dim = sum(lengths), 4, 2, 8
    q, k, v = (torch.randn(1, h, total, dim, dtype=torch.float64) for h in (heads, kv, kv))
    out, _ = per_row(None, q, k, v, None, scaling=dim**-0.5, row_lengths=lengths)
    assert out.shape == (1, total, heads, dim)
    start = 0
    for length in lengths:
        part = [t[:, :, start : start + length] for t in (q, k, v)]
        alone = scaled_dot_product_attention(*part, is_causal=True, enable_gqa=True).transpose(1, 2)
        torch.testing.assert_close(out[:, start : start + length], alone)
        start += length


@pytest.mark.parametrize("window", [1, 4, 6, 7])
def test_a_row_beyond_the_sliding_window_sees_no_further(window):
    """As transformers' own mask: a token, and the `window` - 1 before it."""
    lengths = (6, 3)
    q, k, v = (torch.randn(1, heads, sum(lengths), 4, dtype=torch.float64) for heads in (4, 2, 2))
    out, _ = per_row(None, q, k, v, None, row_lengths=lengths, sliding_window=window)
    start = 0
    for length in lengths:
        apart = torch.arange(length)[:, None] - torch.arange(length)[None]
        mask = (apart >= 0) & (apart < window)
        part = [t[:, :, start : start + length] for t in (q, k, v)]
        alone = scaled_dot_product_attention(*part, attn_mask=mask, enable_gqa=True).transpose(1, 2)
        torch.testing.assert_close(out[:, start : start + length], alone)
        start += length


@pytest.mark.parametrize(
    ("name", "gpu", "batching", "kernel", "dtype"),
    [
        ("auto", True, "packed", "ste_varlen", "bfloat16"),
        ("auto", False, "packed", "ste_sdpa", "bfloat16"),
        ("auto", True, "packed", "ste_sdpa", "float32"),
        ("auto", True, "bucketed", "sdpa", "bfloat16"),
        ("cudnn", True, "packed", "ste_sdpa", "bfloat16"),
        ("flex", True, "packed", "flex_attention", "bfloat16"),
        ("flash_attention_2", True, "packed", "flash_attention_2", "bfloat16"),
    ],
)
def test_kernel_names(name, gpu, batching, kernel, dtype):
    settings = TrainSettings(attention=name, use_gpu=gpu, batching=batching, dtype=dtype)
    assert choose(settings) == kernel
