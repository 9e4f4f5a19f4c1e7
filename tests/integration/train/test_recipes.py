"""DPO and LoRA on real SmolLM2 judgments."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file
from train_runs import judged, run, small


def test_dpo_lowers_its_loss_and_raises_the_margin(cluster, dpo_file, shallow, tmp_path):
    """In fp32: how rows are packed together changes a sum of log-probabilities in bf16 by about a tenth."""
    settings = small(recipe="dpo", lr=5e-5, lr_min=5e-5, batch_rows=8, epochs=2, tokens_per_batch=1024, dtype="float32")
    points = run(settings, tmp_path, dpo_file, shallow).metrics
    assert points[0]["margin"] == pytest.approx(0, abs=1e-4)  # the policy is the reference before the first step
    assert points[0]["dpo_loss"] == pytest.approx(0.6931, abs=1e-4)
    assert points[-1]["dpo_loss"] < points[0]["dpo_loss"]
    assert points[-1]["loss"] < points[0]["loss"]
    assert points[-1]["margin"] > 0.05


def with_adapters(seed, rows, folder):
    settings = small(lora={"rank": 8, "alpha": 32}, lr=2e-3, lr_min=2e-4, recompute="full", bf16=False)
    result = run(settings, folder, rows, seed)
    assert result.losses[-1] < result.losses[0]


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_merged_lora_speaks_like_adapter_and_base(cluster, sft_file, model, tmp_path):
    """The whole model: of its first layers no text can be read."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = tmp_path
    with_adapters(model, sft_file, folder)
    tokenizer = AutoTokenizer.from_pretrained(model)
    prompts = [
        tokenizer.apply_chat_template(judged(i)["prompt"], add_generation_prompt=True, return_dict=False)
        for i in range(3)
    ]
    base = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    adapted = PeftModel.from_pretrained(base, folder / "checkpoint" / "adapter").eval()
    texts = []
    for prompt in prompts:
        ids = adapted.generate(input_ids=torch.tensor([prompt]), max_new_tokens=16, do_sample=False)
        texts.append(tokenizer.decode(ids[0, len(prompt) :], skip_special_tokens=True))
    assert texts == vllm_greedy(str(folder / "checkpoint"), prompts)
    assert any("[[" in text for text in texts)


def test_merged_weights_are_base_plus_scaled_factors(cluster, sft_file, shallow, tmp_path):
    folder = tmp_path
    with_adapters(shallow, sft_file, folder)
    merged = load_file(folder / "checkpoint" / "model.safetensors")
    adapter = load_file(folder / "checkpoint" / "adapter" / "adapter_model.safetensors")
    base = load_file(f"{shallow}/model.safetensors")
    assert set(merged) == set(base)
    name = "model.layers.1.mlp.down_proj"
    down, up = (adapter[f"base_model.model.{name}.lora_{side}.weight"] for side in "AB")
    wanted = base[f"{name}.weight"].float() + 4.0 * (up.float() @ down.float())
    torch.testing.assert_close(merged[f"{name}.weight"], wanted, rtol=1e-5, atol=1e-6)
    assert torch.equal(merged["model.norm.weight"], base["model.norm.weight"].float())


def vllm_greedy(model: str, prompts: list[list[int]]) -> list[str]:
    """Greedy texts of vLLM in fp32, in a process of its own: its threads and memory go with it."""
    import json
    import os
    import subprocess
    import sys

    program = (
        "import json, sys; from vllm import LLM, SamplingParams\n"
        "llm = LLM(sys.argv[1], dtype='float32', enforce_eager=True, max_model_len=512)\n"
        "requests = [{'prompt_token_ids': ids} for ids in json.loads(sys.argv[2])]\n"
        "outs = llm.generate(requests, SamplingParams(temperature=0, max_tokens=16), use_tqdm=False)\n"
        "print('TEXTS' + json.dumps([out.outputs[0].text for out in outs]))\n"
    )
    env = {
        **os.environ, "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": "1",
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0", "HF_HUB_OFFLINE": "1",
    }  # fmt: skip
    command = [sys.executable, "-c", program, model, json.dumps(prompts)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=500, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith("TEXTS")]
    assert lines, done.stderr[-2000:]
    return json.loads(lines[-1].removeprefix("TEXTS"))
