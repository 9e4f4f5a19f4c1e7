"""GPU kernels of training against their plain counterparts. Needs one GPU: `pytest tests/gpu -m gpu`."""

import pytest
import torch

from ray_app.train import flash4
from ray_app.train.attention import flash_attention_4, per_row, varlen
from ray_app.train.head import chunked_nll, liger_nll

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU on this machine")]
LENGTHS = (300, 17, 1024, 64, 643)


def relative(value, reference):
    return float((value.float() - reference.float()).norm() / reference.float().norm())


@pytest.mark.parametrize("kernel", [varlen, flash_attention_4])
@pytest.mark.parametrize("kv", [8, 2])
def test_packed_attention_equals_rows_one_by_one(kernel, kv):
    if kernel is flash_attention_4 and not flash4.available():
        pytest.skip("flash-attn-4 is not installed, or this GPU is older than Hopper")
    torch.manual_seed(0)
    total, heads, dim = sum(LENGTHS), 8, 128

    def make(h):
        return torch.randn(1, h, total, dim, device="cuda", dtype=torch.bfloat16, requires_grad=True)

    q, k, v = make(heads), make(kv), make(kv)
    starts = torch.tensor([0, *LENGTHS]).cumsum(0).to("cuda", torch.int32)
    weight = torch.randn(1, total, heads, dim, device="cuda", dtype=torch.bfloat16)
    found = []
    for attend, arguments in (
        (kernel, {"cu_seqlens": starts, "longest": max(LENGTHS)}),
        (per_row, {"row_lengths": LENGTHS}),
    ):
        out, _ = attend(None, q, k, v, None, scaling=dim**-0.5, **arguments)
        (out * weight).sum().backward()
        found.append([out.detach(), *(tensor.grad.clone() for tensor in (q, k, v))])
        q.grad = k.grad = v.grad = None
    for ours, reference in zip(*found, strict=True):
        assert relative(ours, reference) < 1e-2


def test_flash_attention_4_compiles_whole():
    """No graph break: a compiled block keeps its fused kernels on both sides of the attention."""
    if not flash4.available():
        pytest.skip("flash-attn-4 is not installed, or this GPU is older than Hopper")
    starts = torch.tensor([0, 64, 256], device="cuda", dtype=torch.int32)
    q, k, v = (torch.randn(1, 4, 256, 64, device="cuda", dtype=torch.bfloat16, requires_grad=True) for _ in range(3))

    def run(q, k, v):
        return flash_attention_4(None, q * 2, k, v, None, cu_seqlens=starts, longest=192)[0] * 3

    found = []
    for attend in (run, torch.compile(run, fullgraph=True)):
        attend(q, k, v).square().sum().backward()
        found.append([tensor.grad.clone() for tensor in (q, k, v)])
        q.grad = k.grad = v.grad = None
    for ours, reference in zip(*found, strict=True):
        assert relative(ours, reference) < 1e-2


def test_ligers_loss_equals_the_chunked_one():
    pytest.importorskip("liger_kernel", reason="liger-kernel is in the gpu extra")
    torch.manual_seed(0)
    hidden = torch.randn(3000, 512, device="cuda", dtype=torch.bfloat16, requires_grad=True)
    weight = (torch.randn(32000, 512, device="cuda") * 0.02).bfloat16().requires_grad_()
    targets = torch.randint(0, 32000, (3000,), device="cuda")
    found = []
    for fused in (liger_nll, chunked_nll):
        loss = fused(hidden, weight, None, targets, True, None)
        (loss * 0.25).backward()
        found.append((loss.detach(), hidden.grad.clone(), weight.grad.clone()))
        hidden.grad = weight.grad = None
    for ours, reference in zip(*found, strict=True):
        assert relative(ours, reference) < 1e-2
