"""What a seed's folder shows before any work: quantized weights, tensors that no export would hold, what is read."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch

from ray_app.errors import InputError
from ray_app.train import load, trial
from ray_app.train.load import tensor_names
from ray_app.train.settings import LoraSettings, TrainSettings
from ray_app.train.tiny import tiny_config
from ray_app.train.trainer import warn_of_other_fits
from ray_app.train.trial import refuse_quantized, try_names


def model(model_type: str) -> Any:
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(tiny_config(AutoConfig.for_model(model_type)))


def index(folder: Path, names: list[str]) -> str:
    """A seed of which the index is here, and none of its weights."""
    weight_map = dict.fromkeys(names, "model-00001-of-00002.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return str(folder)


def test_names_are_read_from_the_index_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "weight_files", lambda *_: pytest.fail("the weights were asked for"))
    assert tensor_names(index(tmp_path, ["a", "b"])) == {"a", "b"}


def test_tensors_that_are_left_out_are_noted_and_others_refused(tmp_path: Path) -> None:
    lm = model("llama")
    names = [name for name, _ in lm.named_parameters()]
    assert try_names(lm, index(tmp_path, names), None) == []
    (note,) = try_names(lm, index(tmp_path, [*names, "v_head.summary.weight"]), None)
    assert "1 tensors of its files are no part of the language model" in note
    assert "v_head.summary.weight" in note
    with pytest.raises(InputError, match=r"a llama cannot be exported as it came: model.norm.weight is not in its f"):
        try_names(lm, index(tmp_path, [name for name in names if name != "model.norm.weight"]), None)


def test_quantized_seeds_are_refused_by_name() -> None:
    from transformers import AutoConfig

    config = AutoConfig.for_model("llama", quantization_config={"quant_method": "mxfp4"})
    full = TrainSettings(use_gpu=False)
    with pytest.raises(InputError, match=r"stored quantized \(mxfp4\).*in bfloat16"):
        refuse_quantized(config, full)
    refuse_quantized(AutoConfig.for_model("llama"), full)
    config.quantization_config = {"quant_method": "bitsandbytes"}
    by_adapters = full.model_copy(update={"lora": LoraSettings(quantize=True)})
    refuse_quantized(config, by_adapters)
    with pytest.raises(InputError, match="bitsandbytes"):
        refuse_quantized(config, full)


def test_longer_rows_are_another_trial() -> None:
    one, other = (TrainSettings(sequence_length=length) for length in (512, 4096))
    keys = {trial._key("m", None, settings, [], {}) for settings in (one, other)}
    assert len(keys) == 2


def test_an_earlier_fit_with_other_settings_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        warn_of_other_fits(str(tmp_path / "none"), "b")
        (tmp_path / "b").mkdir()
        warn_of_other_fits(str(tmp_path), "b")
        assert not caplog.records
        (tmp_path / "b").rename(tmp_path / "a")
        warn_of_other_fits(str(tmp_path), "b")
    assert "an earlier fit with other settings (a): training starts anew" in caplog.text


def test_adapters_have_a_rate_of_their_own() -> None:
    """Full fine-tuning's 1e-6 would hardly move them; who sets it is told."""
    adapted = TrainSettings(lora=LoraSettings())
    assert (adapted.lr, adapted.lr_min) == (1e-4, 1e-5)
    assert trial.slow_adapters(adapted) == []
    slow = TrainSettings(lora=LoraSettings(), lr=1e-6)
    assert slow.lr_min == pytest.approx(1e-7)
    (note,) = trial.slow_adapters(slow)
    assert "train.lr 1e-06" in note
    (note,) = trial.slow_adapters(TrainSettings(recipe="dpo", lora=LoraSettings()))
    assert "5e-6" in note
    assert (TrainSettings().lr, TrainSettings(recipe="dpo", lora=LoraSettings()).lr) == (1e-6, 5.5e-8)
