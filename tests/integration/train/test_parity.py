"""Two ZeRO-3 workers do what plain PyTorch does: loss, gradient norm, packing, loading."""

from __future__ import annotations

import math

import pyarrow.parquet as pq
import pytest
import torch
from train_runs import run, small


def plain_step(model: str, file: str, units: list[int], dtype: torch.dtype) -> tuple[float, float]:
    """Loss and gradient norm of one step over these rows, as one padded batch, by transformers alone."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    lm = AutoModelForCausalLM.from_pretrained(model, dtype=dtype)
    rows = pq.read_table(file).to_pylist()
    ids, labels = [], []
    for row in (rows[unit] for unit in units):
        head = tokenizer.apply_chat_template(row["prompt"], add_generation_prompt=True, return_dict=False)
        whole = tokenizer.apply_chat_template(row["prompt"] + row["completion"], return_dict=False)
        ids.append(torch.tensor(whole))
        labels.append(torch.tensor([-100] * len(head) + whole[len(head) :]))
    padded = [torch.nn.utils.rnn.pad_sequence(part, batch_first=True, padding_value=-100) for part in (ids, labels)]
    mask = padded[0] != -100
    loss = lm(input_ids=padded[0].clamp(min=0), attention_mask=mask, labels=padded[1]).loss
    loss.backward()
    return loss.item(), math.sqrt(sum(p.grad.double().pow(2).sum().item() for p in lm.parameters()))


def first_units(file: str, model: str, settings) -> list[int]:
    """Rows of the first optimizer step."""
    from transformers import AutoTokenizer

    from ray_app.train.batches import plan_epoch
    from ray_app.train.data import concatenate, encode_table, read_rows
    from ray_app.train.job import plan_settings

    options = {"recipe": "sft", "sequence_length": 256, "chat_template_kwargs": {}}
    table, _ = encode_table(read_rows(file), AutoTokenizer.from_pretrained(model), **options)
    return plan_epoch(concatenate([table]).unit_lengths.tolist(), plan_settings(settings, 5), 0)[0].units


def test_bf16_loss_and_gradient_norm_are_those_of_plain_pytorch(cluster, sft_file, shallow, tmp_path):
    settings = small(dtype="bfloat16", batch_rows=2, max_steps=1)  # few rows: without instructions for it, bf16 crawls
    result = run(settings, tmp_path, sft_file, shallow)
    loss, norm = plain_step(shallow, sft_file, first_units(sft_file, shallow, settings), torch.bfloat16)
    assert result.metrics[0]["loss"] == pytest.approx(loss, rel=1e-2)
    assert result.metrics[0]["grad_norm"] == pytest.approx(norm, rel=1e-2)


def test_fp32_padded_batches_are_within_a_ten_thousandth(cluster, sft_file, shallow, tmp_path):
    settings = small(bf16=False, batching="bucketed", max_steps=1, recompute="selective")
    result = run(settings, tmp_path, sft_file, shallow)
    loss, norm = plain_step(shallow, sft_file, first_units(sft_file, shallow, settings), torch.float32)
    assert result.metrics[0]["loss"] == pytest.approx(loss, rel=1e-4)
    assert result.metrics[0]["grad_norm"] == pytest.approx(norm, rel=1e-4)


@pytest.mark.parametrize("compile", ["none", "aot_eager"])
def test_packed_loss_and_gradients_equal_unpacked_ones(sft_file, model, compile):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from ray_app.train import attention
    from ray_app.train.collate import collate
    from ray_app.train.data import concatenate, encode_table, read_rows
    from ray_app.train.model import JudgeModel, prepare

    attention.register()
    options = {"recipe": "sft", "sequence_length": 256, "chat_template_kwargs": {}}
    table, _ = encode_table(read_rows(sft_file), AutoTokenizer.from_pretrained(model), **options)
    rows = concatenate([table])
    found = {}
    for packed in (True, False):
        name = "ste_sdpa" if packed else "sdpa"
        lm = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32, attn_implementation=name)
        prepare(lm, small(bf16=False, zero={"stage": 2}, compile=compile if packed else "none"))
        judge = JudgeModel(lm).train()
        pad_to = 320 if packed else None
        loss = judge(batch=collate(rows, range(3), packed=packed, kernel=name, pad_to=pad_to), summed=True)
        loss.backward()
        found[packed] = loss.item(), torch.stack([p.grad.norm() for p in judge.parameters()])
    assert found[True][0] == pytest.approx(found[False][0], rel=1e-5)
    torch.testing.assert_close(found[True][1], found[False][1], rtol=1e-4, atol=1e-6)
