"""QLoRA for real: SmolLM2's first layers in 4-bit NF4 (bitsandbytes), sharded over two ZeRO-3 workers."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file
from train_runs import run, small

pytestmark = pytest.mark.long
RANK, ALPHA = 8, 32


@pytest.fixture(scope="module")
def quantized_run(cluster, sft_file, shallow, tmp_path_factory):
    folder = tmp_path_factory.mktemp("qlora")
    lora = {"rank": RANK, "alpha": ALPHA, "quantize": True, "quant_storage": "float32"}
    return folder, run(small(lora=lora, lr=2e-3, lr_min=2e-4, dtype="float32"), folder, sft_file, shallow)


def test_the_loss_falls(quantized_run):
    _, result = quantized_run
    assert result.losses[-1] < result.losses[0]


def test_the_export_is_the_dequantised_base_plus_scaled_factors(quantized_run, shallow):
    """As the adapters have seen the base; what was never quantised (embedding, norms) is the seed's own."""
    from bitsandbytes.functional import dequantize_4bit, quantize_4bit

    folder, _ = quantized_run
    merged = load_file(folder / "checkpoint" / "model.safetensors")
    adapter = load_file(folder / "checkpoint" / "adapter" / "adapter_model.safetensors")
    base = load_file(f"{shallow}/model.safetensors")
    assert set(merged) == set(base)
    moved = 0
    for name, weight in base.items():
        if "proj" not in name:
            assert torch.equal(merged[name].float(), weight.float()), name
            continue
        stored = quantize_4bit(weight.float(), compress_statistics=True, quant_type="nf4", quant_storage=torch.float32)
        down, up = (adapter[f"base_model.model.{name.removesuffix('weight')}lora_{side}.weight"] for side in "AB")
        step = ALPHA / RANK * (up.float() @ down.float())
        wanted = dequantize_4bit(*stored).float() + step
        torch.testing.assert_close(merged[name].float(), wanted, rtol=1e-5, atol=1e-6, msg=name)
        moved += bool(step.abs().max() > 0)
    assert moved == len(adapter) // 2


def test_the_model_of_the_export_is_the_adapted_one(quantized_run, shallow):
    """PEFT's own reading of base and adapter gives the log-probabilities of the exported weights."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    folder, _ = quantized_run
    stored = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True)
    base = AutoModelForCausalLM.from_pretrained(shallow, dtype=torch.float32, quantization_config=stored)
    # In training mode, as it was trained: without gradients bitsandbytes multiplies in bf16 where the processor can.
    adapted = PeftModel.from_pretrained(base, folder / "checkpoint" / "adapter", is_trainable=True).train()
    exported = AutoModelForCausalLM.from_pretrained(folder / "checkpoint", dtype=torch.float32).eval()
    tokens = torch.arange(100, 164)[None]
    by_adapter, by_export = (model(tokens).logits.log_softmax(-1).detach() for model in (adapted, exported))
    torch.testing.assert_close(by_export, by_adapter, rtol=1e-3, atol=1e-3)
