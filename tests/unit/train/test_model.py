"""The trained model against transformers' own loss, on a tiny random Llama."""

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from ray_app.train import attention
from ray_app.train.collate import collate
from ray_app.train.data import TokenRows
from ray_app.train.model import JudgeModel, decoder_blocks, fresh_buffers, prepare, restore_buffers
from ray_app.train.settings import TrainSettings
from ray_app.train.tiny import tiny_config

CONFIG = {
    "vocab_size": 97, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 64, "tie_word_embeddings": True,
}  # fmt: skip
LENGTHS = [9, 17, 9, 9, 5]


def tiny(kernel="ste_sdpa", dtype=torch.float32):
    attention.register()
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(
        AutoConfig.for_model("llama", **CONFIG), dtype=dtype, attn_implementation=kernel
    )


def rows():
    random = np.random.default_rng(0)
    return TokenRows(
        tokens=random.integers(0, 97, sum(LENGTHS)).astype(np.int32),
        offsets=np.concatenate([[0], np.cumsum(LENGTHS)]),
        prompts=np.array([3, 8, 1, 8, 2], dtype=np.int32),
    )


def settings(**changes):
    return TrainSettings(**{"use_gpu": False, "bf16": False, "recompute": "none", "zero": {"stage": 2}, **changes})


def plain_losses(data):
    """Sum of the completion tokens' NLL of each row, by transformers alone."""
    lm = tiny("sdpa")
    sums = []
    for i in range(len(data)):
        ids = torch.from_numpy(data.row(i).astype(np.int64))[None]
        labels = ids.clone()
        labels[:, : data.prompts[i]] = -100
        sums.append(lm(input_ids=ids, labels=labels).loss * (ids.shape[1] - int(data.prompts[i])))
    return torch.stack(sums), lm


@pytest.mark.parametrize("changes", [{}, {"recompute": "full"}, {"recompute": "selective"}, {"compile": "aot_eager"}])
@pytest.mark.parametrize("packed", [True, False])
def test_loss_and_gradients_are_transformers_own(changes, packed):
    data = rows()
    plain, reference = plain_losses(data)
    plain.sum().backward()
    kernel = "ste_sdpa" if packed else "sdpa"
    lm = tiny(kernel)
    prepare(lm, settings(**changes))
    model = JudgeModel(lm).train()
    assert model.size == reference.num_parameters()
    batch = collate(data, range(5), packed=packed, kernel=kernel)
    loss = model(batch=batch, summed=True)
    loss.backward()
    torch.testing.assert_close(loss, plain.sum(), rtol=1e-5, atol=1e-5)
    for ours, theirs in zip(lm.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-5)


def test_one_row_does_not_change_with_its_neighbours():
    data = rows()
    lm = tiny()
    prepare(lm, settings())
    model = JudgeModel(lm)
    alone = model(batch=collate(data, [1], packed=True), summed=False)
    among = collate(data, [0, 1, 4], packed=True)
    together = model(batch=among, summed=False)[among.row_of_target == 1]
    torch.testing.assert_close(together, alone)


def test_selective_recompute_takes_every_other_block():
    lm = tiny()
    prepare(lm, settings(recompute="selective", recompute_every=2))
    assert [block.gradient_checkpointing for block in decoder_blocks(lm)] == [True, False, True, False]


@pytest.mark.parametrize("model_type", ["llama", "gemma3_text", "olmo3"])
def test_computed_buffers_come_back_in_fp32(model_type):
    """Whatever their name: OLMo 3 and Gemma 3 have frequencies for each kind of layer, Gemma a scale of embeddings."""
    config = tiny_config(AutoConfig.for_model(model_type))
    exact = fresh_buffers(config)
    cast = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).bfloat16()
    assert any("inv_freq" in name for name in exact)
    assert all(buffer.dtype == torch.bfloat16 for buffer in cast.buffers())  # as zero.Init leaves them
    restore_buffers(JudgeModel(cast), exact, torch.device("cpu"))
    restored = dict(cast.named_buffers())
    assert all(torch.equal(restored[name], buffer) for name, buffer in exact.items())
