"""The self-test finds what our path does otherwise than transformers: kernels, packing, head, buffers; by family."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ray_app.errors import InputError
from ray_app.train import attention, self_test
from ray_app.train.model import fresh_buffers
from ray_app.train.self_test import Found, Way, differences
from ray_app.train.settings import TrainSettings
from ray_app.train.tiny import VOCABULARY, tiny_config


def config(model_type: str, **more: Any) -> Any:
    from transformers import AutoConfig

    return AutoConfig.for_model(model_type, **more)


def settings(**more: Any) -> TrainSettings:
    return TrainSettings(use_gpu=False, dtype="float32", **more)


@pytest.mark.parametrize("model_type", ["llama", "gemma3_text", "cohere2", "granite", "mixtral"])
def test_families_that_pack(model_type: str) -> None:
    """Plain ones, computed buffers of other names, scaled logits, experts."""
    assert self_test.self_test(config(model_type), settings()) == self_test.Outcome("packed", "auto")


@pytest.mark.parametrize(
    ("model_type", "outcome", "said"),
    [
        ("gemma2", ("bucketed", "eager"), "sdpa has no softcap"),
        ("gpt_oss", ("bucketed", "eager"), "scaled_dot_product_at"),
        ("qwen3_next", ("bucketed", "sdpa"), "packed rows with sdpa: the loss is"),
        ("stablelm", ("bucketed", "sdpa"), "row_lengths"),
        ("gpt2", ("bucketed", "sdpa"), "it has no dropout, and this model's attention has 0.1"),
    ],
)
def test_families_that_fall_back_say_why(model_type: str, outcome: tuple[str, str], said: str) -> None:
    found = self_test.self_test(config(model_type), settings())
    assert (found.batching, found.attention) == outcome
    assert said in found.note
    assert "\n" not in found.note


def test_a_named_kernel_that_is_not_right_is_refused() -> None:
    with pytest.raises(
        InputError, match=r"a gemma2 cannot be trained right: packed rows with sdpa: sdpa has no softcap"
    ):
        self_test.self_test(config("gemma2"), settings(attention="sdpa"))


def test_convolutions_mix_packed_neighbours() -> None:
    kinds = ["conv", "conv", "full_attention", "conv"]
    found = self_test.self_test(config("lfm2", layer_types=kinds, num_hidden_layers=4), settings())
    assert (found.batching, found.attention) == ("bucketed", "sdpa")


def test_a_head_that_forgets_its_factor_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(self_test, "output_scale", lambda _: 1.0)
    with pytest.raises(InputError, match="a granite cannot be trained right"):
        self_test.self_test(config("granite", logits_scaling=8.0), settings())


@pytest.mark.parametrize("window", [512, 8192])
def test_windows_are_tried_where_rows_exceed_them(window: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel that sees too far is found where a row of the sequence length is longer than the window, and is as good
    as any where none is.
    """
    seed = config("mistral", sliding_window=window)
    assert self_test.self_test(seed, settings()) == self_test.Outcome("packed", "auto")
    monkeypatch.setattr(attention, "_window", lambda *_: None)
    found = self_test.self_test(seed, settings())
    assert found.batching == ("bucketed" if window == 512 else "packed")


def test_a_seeds_config_stays_as_it_is() -> None:
    seed = config("llama", num_hidden_layers=1, hidden_size=64, vocab_size=64)
    seed._attn_implementation, seed.dtype = "sdpa", torch.bfloat16
    fresh_buffers(seed)
    assert (seed._attn_implementation, seed.dtype) == ("sdpa", torch.bfloat16)


@pytest.mark.parametrize("name", ["sdpa", "flex"])
def test_dropout_of_attention_is_no_matter_of_packed_kernels(name: str) -> None:
    with pytest.raises(InputError, match=r"it has no dropout, and this model.s attention has 0\.1"):
        self_test.self_test(config("llama", attention_dropout=0.1), settings(attention=name))


@pytest.mark.parametrize("model_type", ["llama", "gemma3_text", "olmo3"])
def test_computed_buffers_are_found_whatever_their_name(model_type: str) -> None:
    found = fresh_buffers(tiny_config(config(model_type)))
    assert found
    assert all(buffer.dtype == torch.float32 for buffer in found.values())
    assert any("inv_freq" in name for name in found)


def test_tiny_configs_keep_flags_and_kinds_of_layers() -> None:
    whole = config("gemma2", final_logit_softcapping=7.0)
    small = tiny_config(whole)
    assert (small.final_logit_softcapping, small.vocab_size, small.num_hidden_layers) == (7.0, VOCABULARY, 2)
    assert set(small.layer_types) == set(whole.layer_types)
    assert whole.vocab_size > 1000, "the seed's own config stays"
    grouped = tiny_config(config("llama", num_attention_heads=32, num_key_value_heads=8))
    assert (grouped.num_attention_heads, grouped.num_key_value_heads) == (4, 1)


def test_ways_are_tried_from_the_fastest() -> None:
    names = [(name, way.batching, way.kernel) for name, way in self_test.ways(settings())]
    assert names == [
        ("auto", "packed", "ste_sdpa"),
        ("sdpa", "bucketed", "sdpa"),
        ("eager", "bucketed", "eager"),
    ]
    (only,) = self_test.ways(settings(attention="sdpa", batching="bucketed"))
    assert only == ("sdpa", Way("bucketed", "sdpa"))


def test_differences_name_what_differs() -> None:
    one, two = torch.ones(4), torch.full((4,), 2.0)
    wanted = Found(10.0, {"a": one, "b": two})
    assert list(differences(Found(10.0001, {"a": one, "b": two}), wanted, 1e-4)) == []
    assert list(differences(Found(11.0, {"a": two, "c": one}), wanted, 1e-4)) == [
        "the loss is +10.00% off",
        "the gradient of a is 100.0% off",
        "b gets no gradient",
    ]


def test_kernels_refuse_what_they_do_not_do() -> None:
    attention.refuse("sdpa", {"dropout": 0.0, "position_ids": torch.arange(3), "softcap": None})
    for name, value in (("s_aux", torch.ones(2)), ("softcap", 5.0), ("dropout", 0.1)):
        with pytest.raises(NotImplementedError, match=f"sdpa has no {name}"):
            attention.refuse("sdpa", {name: value})
