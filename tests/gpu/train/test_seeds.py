"""The trial of a seed on a GPU: our kernels there in bf16, against eager attention. `pytest tests/gpu -m gpu`."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ray_app.train.self_test import self_test
from ray_app.train.settings import TrainSettings

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU on this machine")]


def found(model_type: str, **settings: Any) -> tuple[str, str]:
    from transformers import AutoConfig

    outcome = self_test(
        AutoConfig.for_model(model_type), TrainSettings(use_gpu=True, dtype="bfloat16", sequence_length=512, **settings)
    )
    return outcome.batching, outcome.attention


@pytest.mark.parametrize("model_type", ["llama", "qwen3", "mistral", "gemma3_text", "olmo3", "cohere2", "phi3"])
@pytest.mark.parametrize("kernels", ["auto", "torch"])
def test_families_that_pack(model_type: str, kernels: str) -> None:
    assert found(model_type, kernels=kernels) == ("packed", "auto")


@pytest.mark.parametrize("model_type", ["mixtral", "qwen3_moe", "deepseek_v3"])
def test_experts_pack(model_type: str) -> None:
    """Without Liger, whose kernels for experts are tuned for half a minute a shape."""
    assert found(model_type, kernels="torch") == ("packed", "auto")


@pytest.mark.parametrize(
    ("model_type", "attention"), [("gemma2", "eager"), ("gpt_oss", "eager"), ("qwen3_next", "sdpa")]
)
def test_families_that_fall_back(model_type: str, attention: str) -> None:
    assert found(model_type) == ("bucketed", attention)
