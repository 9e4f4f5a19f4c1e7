"""Exports have the hub's names: as `save_pretrained` writes them, experts and stored buffers too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from ray_app.errors import InputError
from ray_app.train.export import describe
from ray_app.train.gather import stored_buffers
from ray_app.train.lora import refuse_output_layer
from ray_app.train.settings import LoraSettings
from ray_app.train.tensor_names import left_out_names, on_hub, shapes_on_hub, unknown_names
from ray_app.train.tiny import tiny_config
from ray_app.train.trial import refuse_wrappers, skeleton


def model(model_type: str) -> Any:
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(tiny_config(AutoConfig.for_model(model_type)))


@pytest.mark.parametrize("model_type", ["llama", "gemma2", "mixtral", "qwen3_moe", "deepseek_v3", "olmoe", "gpt_oss"])
def test_tensors_are_those_that_save_pretrained_writes(model_type: str, tmp_path: Path) -> None:
    lm = model(model_type)
    lm.save_pretrained(tmp_path)
    wanted = load_file(tmp_path / "model.safetensors")
    held = {**dict(lm.named_parameters()), **stored_buffers(lm)}
    parts = [dict([one]) for one in held.items()]  # one tensor a shard: the conversion needs no other
    found = {name: tensor for part in parts for name, tensor in on_hub(lm, part).items()}
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in wanted.items())
    shapes = shapes_on_hub(lm, describe(lm))
    assert shapes == {name: tuple(tensor.shape) for name, tensor in wanted.items()}
    for one in (lm, skeleton(lm.config)):
        assert (unknown_names(one, shapes, wanted), left_out_names(one, shapes, wanted)) == ([], [])


def test_names_that_differ_are_told() -> None:
    lm = model("llama")
    names = shapes_on_hub(lm, describe(lm))
    assert left_out_names(lm, names, [*names, "v_head.summary.weight"]) == ["v_head.summary.weight"]
    assert unknown_names(lm, names, list(names)[1:]) == [next(iter(names))]
    old = "model.layers.0.self_attn.rotary_emb.inv_freq"
    assert left_out_names(lm, names, [*names, old]) == [], "files of long ago hold what is computed"
    bare = [name.removeprefix("model.") for name in names]
    assert (unknown_names(lm, names, bare), left_out_names(lm, names, bare)) == ([], []), "as GPT-2's are"


def test_an_adapter_on_the_output_layer_is_refused() -> None:
    lm = model("llama")
    with pytest.raises(InputError, match="lm_head is the output layer"):
        refuse_output_layer(lm, LoraSettings(targets=("q_proj", "lm_head")))
    refuse_output_layer(lm, LoraSettings(targets=("q_proj",)))
    refuse_output_layer(lm, LoraSettings())


def test_a_multimodal_wrapper_is_refused_by_name() -> None:
    from transformers import AutoConfig

    with pytest.raises(InputError, match=r"a gemma3 wraps a text model \(gemma3_text\)"):
        refuse_wrappers(AutoConfig.for_model("gemma3"))
    refuse_wrappers(AutoConfig.for_model("gemma3_text"))


def test_adapted_experts_keep_their_stored_buffers() -> None:
    """DeepSeek's router has a correction in a buffer: exported as it is, in its own format."""
    from ray_app.train.lora import add_adapters, merged_tensors

    lm = model("deepseek_v3")
    wanted = shapes_on_hub(lm, describe(lm))
    add_adapters(lm, LoraSettings(targets=("o_proj",)), seed=0)
    found = {tensor.name: tuple(tensor.parameter.shape) for tensor in merged_tensors(lm)}
    assert shapes_on_hub(lm, found) == wanted
    assert any("e_score_correction_bias" in name for name in wanted)
