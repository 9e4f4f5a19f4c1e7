"""QLoRA on a GPU, under ZeRO-3: bf16 beside a base of 4 bits. Needs one GPU and bitsandbytes."""

from __future__ import annotations

import pytest
import torch

from ray_app.base.schema import TRAIN_SFT

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU on this machine")]
RANK, ALPHA = 8, 32


def test_the_export_is_the_dequantised_base_plus_scaled_factors(shallow, tmp_path_factory, tmp_path):
    """As the adapters have seen the base, to the last bit of bf16; the loss falls."""
    import sys
    from pathlib import Path

    import ray
    from bitsandbytes.functional import dequantize_4bit, quantize_4bit
    from safetensors.torch import load_file

    sys.path.insert(0, str(Path(__file__).parents[2] / "integration" / "train"))
    from local_ray import start_ray
    from train_runs import judged, run, small, write_rows

    rows = [{**row, "completion": row["correct"]} for row in map(judged, range(24))]
    file = write_rows(tmp_path_factory, "sft", [{n: row.get(n) for n in TRAIN_SFT.names} for row in rows], TRAIN_SFT)
    lora = {"rank": RANK, "alpha": ALPHA, "quantize": True}
    settings = small(
        lora=lora, lr=2e-3, lr_min=2e-4, dtype="bfloat16", use_gpu=True, workers=1, kernels="torch", epochs=2
    )
    start_ray(num_cpus=4, num_gpus=1, object_store_memory=200 * 2**20)
    try:
        result = run(settings, tmp_path, file, shallow)
    finally:
        ray.shutdown()
    assert result.losses[-1] < result.losses[0]
    merged = load_file(tmp_path / "checkpoint" / "model.safetensors")
    adapter = load_file(tmp_path / "checkpoint" / "adapter" / "adapter_model.safetensors")
    moved = 0
    for name, weight in load_file(f"{shallow}/model.safetensors").items():
        if "proj" not in name:
            assert torch.equal(merged[name], weight.to(torch.bfloat16)), name
            continue
        stored = quantize_4bit(
            weight.to("cuda", torch.bfloat16), compress_statistics=True, quant_type="nf4", quant_storage=torch.bfloat16
        )
        down, up = (adapter[f"base_model.model.{name.removesuffix('weight')}lora_{side}.weight"] for side in "AB")
        step = ALPHA / RANK * (up.float() @ down.float())
        wanted = (dequantize_4bit(*stored).float().cpu() + step).to(torch.bfloat16)
        torch.testing.assert_close(merged[name], wanted, rtol=1e-2, atol=1e-3, msg=name)
        moved += bool(step.abs().max() > 0)
    assert moved == len(adapter) // 2
