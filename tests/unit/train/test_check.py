"""Bad settings stop early, with the setting named."""

import importlib.util

import pytest

from ray_app.errors import InputError
from ray_app.train.check import ModelFacts, check
from ray_app.train.settings import TrainSettings

MODEL = ModelFacts(max_positions=8192, layers=2, attention_heads=4)


def test_the_papers_defaults_pass():
    check(TrainSettings(), MODEL, {"GPU": 8, "CPU": 64})
    check(TrainSettings(recipe="dpo"), MODEL, {"GPU": 8, "CPU": 64})


@pytest.mark.parametrize(
    ("setting", "given"),
    [
        ("accumulation", {"batch_rows": 32, "accumulation": 2}),
        ("tokens_per_batch", {"tokens_per_batch": 4095}),
        ("tokens_per_batch", {"recipe": "dpo", "tokens_per_batch": 4095}),
        ("sequence_length", {"sequence_length": 8193, "tokens_per_batch": 9000}),
        ("lr_min", {"lr": 1e-7}),
        ("workers", {"workers": 9}),
        ("cpus_per_worker", {"cpus_per_worker": 9}),
        ("lora.quant_storage", {"lora": {"quantize": True, "quant_storage": "uint8"}}),
        ("lora.quant_storage", {"bf16": False, "lora": {"quantize": True}}),
        ("attention", {"use_gpu": False, "attention": "varlen"}),
        ("attention", {"batching": "bucketed", "attention": "varlen"}),
        ("attention", {"bf16": False, "attention": "varlen"}),
        ("compile", {"compile": "inductor", "attention": "cudnn"}),
        ("kernels", {"use_gpu": False, "kernels": "liger"}),
        ("zero.offload.parameters", {"zero": {"stage": 2, "offload": {"parameters": "cpu"}}}),
        ("zero.offload.nvme_path", {"zero": {"offload": {"optimizer": "nvme"}}}),
        ("zero.hpz_size", {"zero": {"hpz_size": 3}}),
        ("checkpoint_every", {"checkpoint_every": 0, "selection": {"when": "between"}}),
    ],
)
def test_a_bad_setting_is_named(setting, given):
    with pytest.raises(InputError, match=rf"^train\.{setting}: "):
        check(TrainSettings(**given), MODEL, {"GPU": 8, "CPU": 64})


def test_a_cluster_that_scaled_down_is_waited_for(caplog):
    head = {"CPU": 0}
    check(TrainSettings(), MODEL, head, may_grow=True)
    assert "train.workers: 8 workers need 8 GPUs, the cluster has 0; training waits" in caplog.text
    with pytest.raises(InputError, match=r"train\.workers: 8 workers need 8 GPUs"):
        check(TrainSettings(), MODEL, head, may_grow=False)


def test_qlora_without_bitsandbytes_is_refused(monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "bitsandbytes" else found(name, *a)
    )
    with pytest.raises(InputError, match=r"^train\.lora\.quantize: .*\[qlora\]"):
        check(TrainSettings(lora={"quantize": True}), MODEL, None)


def test_qlora_without_zero3_takes_any_storage():
    check(TrainSettings(zero={"stage": 2}, lora={"quantize": True, "quant_storage": "uint8"}), MODEL, None)


def test_unknown_keys_are_errors():
    with pytest.raises(ValueError, match="learning_rate"):
        TrainSettings(learning_rate=1e-6)


def test_dpo_changes_defaults_but_not_given_values():
    settings = TrainSettings(recipe="dpo", sequence_length=1024)
    assert (settings.lr, settings.batch_rows, settings.sequence_length) == (5.5e-8, 32, 1024)
    assert TrainSettings().lr == 1e-6
