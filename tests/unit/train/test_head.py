"""The fused output layer: values and gradients of a plain cross-entropy."""

import pytest
import torch
from torch.nn.functional import cross_entropy, linear

from ray_app.train import head


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("softcap", [None, 3.0])
def test_chunks_equal_the_plain_loss(monkeypatch, bias, softcap):
    monkeypatch.setattr(head, "CHUNK", 4)
    torch.manual_seed(0)
    layer = torch.nn.Linear(6, 11, bias=bias, dtype=torch.float64)
    hidden = torch.randn(10, 6, dtype=torch.float64, requires_grad=True)
    targets = torch.randint(0, 11, (10,))
    logits = linear(hidden, layer.weight, layer.bias)
    logits = logits if softcap is None else softcap * torch.tanh(logits / softcap)
    plain = cross_entropy(logits, targets, reduction="none")
    plain.sum().backward()
    wanted = (hidden.grad.clone(), layer.weight.grad.clone())
    hidden.grad = layer.weight.grad = None
    head.fuse_head(layer, kernels="torch", softcap=softcap)
    each = layer(hidden, targets, summed=False)
    torch.testing.assert_close(each, plain.float(), check_dtype=False, rtol=1e-5, atol=1e-5)
    layer(hidden, targets, summed=True).backward()
    torch.testing.assert_close(hidden.grad, wanted[0], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(layer.weight.grad, wanted[1], rtol=1e-5, atol=1e-6)
