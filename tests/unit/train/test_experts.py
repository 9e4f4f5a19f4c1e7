"""Routers' loss is transformers' own, and only where a seed asks for it; parameters of idle experts are no work."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from ray_app.train.collate import collate
from ray_app.train.data import TokenRows
from ray_app.train.experts import active_parameters, balancing_weight
from ray_app.train.model import JudgeModel, prepare
from ray_app.train.settings import TrainSettings
from ray_app.train.tiny import tiny_config

ROW = np.arange(3, 43)


def model(model_type: str, **more: Any) -> Any:
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    small = tiny_config(AutoConfig.for_model(model_type))
    for name, value in more.items():
        setattr(small, name, value)
    return AutoModelForCausalLM.from_config(small, dtype=torch.float32)


@pytest.mark.parametrize("model_type", ["mixtral", "qwen3_moe", "olmoe"])
def test_the_loss_of_routers_is_transformers_own(model_type: str) -> None:
    lm = model(model_type, output_router_logits=True, router_aux_loss_coef=0.5).eval()
    ids = torch.from_numpy(ROW)[None]
    whole = lm(input_ids=ids, labels=ids)
    plain = lm(input_ids=ids, labels=ids, output_router_logits=False)
    assert whole.loss > plain.loss
    prepare(lm, TrainSettings(use_gpu=False, dtype="float32", recompute="none"), leaves=False)
    rows = TokenRows(ROW.astype(np.int32), np.array([0, len(ROW)]), np.array([1], dtype=np.int32))
    batch = collate(rows, [0], packed=False)
    found = JudgeModel(lm)(batch=batch, summed=True) / len(batch.targets)
    torch.testing.assert_close(found, whole.loss)


def test_most_seeds_ask_for_none() -> None:
    assert balancing_weight(model("qwen3_moe").config) == 0
    assert balancing_weight(model("llama").config) == 0


@pytest.mark.parametrize("model_type", ["mixtral", "qwen3_moe", "deepseek_v3", "gpt_oss"])
def test_idle_experts_are_no_work(model_type: str) -> None:
    """Two of four experts: half of their parameters, and all of the others."""
    lm = model(model_type)
    sizes = {name: parameter.numel() for name, parameter in lm.named_parameters()}
    routed = sum(size for name, size in sizes.items() if ".experts." in name)
    assert routed > 0
    assert active_parameters(sizes.items(), lm.config) == sum(sizes.values()) - routed // 2
    assert JudgeModel(lm).size == sum(sizes.values()) - routed // 2


def test_all_parameters_of_dense_models_are_work() -> None:
    lm = model("llama")
    assert JudgeModel(lm).size == sum(parameter.numel() for parameter in lm.parameters())
