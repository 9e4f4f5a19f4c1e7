"""A small Llama inside a larger shape: the same logits, and gradients that leave alone what is new."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from padding import Padding, shape_of_config  # type: ignore[import-not-found]
from shapes import Shape  # type: ignore[import-not-found]

SMALL = Shape(layers=2, width=24, ffn=40, heads=6, kv_heads=2, vocabulary=50, head_width=8)
LARGER = {
    "the same": SMALL,
    "wider": Shape(2, 60, 40, 6, 2, 50, 8),
    "wider feed-forward": Shape(2, 24, 96, 6, 2, 50, 8),
    "more heads of each key": Shape(2, 24, 40, 8, 2, 50, 8),
    "more heads of keys": Shape(2, 24, 40, 12, 4, 50, 8),
    "wider heads": Shape(2, 24, 40, 6, 2, 50, 32),
    "deeper": Shape(4, 24, 40, 6, 2, 50, 8),
    "all of it": Shape(3, 96, 96, 16, 4, 50, 16),
}


def config_of(shape: Shape, **more: Any) -> Any:
    from transformers import LlamaConfig

    fields = {name: value for name, value in shape.config().items() if name != "model_type"}
    return LlamaConfig(**{**fields, "rms_norm_eps": 1e-5, "attn_implementation": "eager", **more})


def small_model(tied: bool) -> Any:
    from transformers import LlamaForCausalLM

    torch.manual_seed(0)
    model = LlamaForCausalLM(config_of(SMALL, tie_word_embeddings=tied)).eval()
    with torch.no_grad():  # initial norms are all one, and initial weights too small to tell
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.3 + (parameter.ndim == 1))
    return model


def larger_model(small: Any, shape: Shape) -> tuple[Any, Padding]:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = small.config.to_dict()
    padding = Padding(shape_of_config(config), shape, config["rms_norm_eps"])
    held = small.state_dict()
    weights = {name: padding.tensor(name, held.__getitem__, torch.float32) for name in padding.sizes}
    model = LlamaForCausalLM(LlamaConfig(**{**padding.config(config), "attn_implementation": "eager"})).eval()
    model.load_state_dict(weights)
    return model, padding


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("name", LARGER)
def test_logits_are_those_of_the_small_model(name: str, tied: bool) -> None:
    small = small_model(tied)
    large, _ = larger_model(small, LARGER[name])
    ids = torch.randint(0, SMALL.vocabulary, (2, 12), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        wanted, found = small(ids).logits, large(ids).logits
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("heads", [12, 16], ids=["groups of the same size", "larger groups"])
def test_training_leaves_the_new_weights_alone(heads: int) -> None:
    small = small_model(tied=False)
    large, padding = larger_model(small, replace(LARGER["all of it"], heads=heads))
    ids = torch.randint(0, SMALL.vocabulary, (1, 12), generator=torch.Generator().manual_seed(1))
    large(ids, labels=ids).loss.backward()
    for name, parameter in large.named_parameters():
        # Where a tensor of ones lands is what the small model has of it.
        ones = padding.tensor(name, lambda name: torch.ones_like(small.state_dict()[name]), torch.float32)
        new = (ones == 0) | name.startswith("model.layers.2.")
        if heads == 16 and "o_proj" in name:
            continue  # a group's other query heads look at all keys alike, and may learn to
        assert parameter.grad[new].abs().sum() == 0, name
        assert new.all() or parameter.grad[~new].abs().sum() > 0, name


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        (Shape(1, 24, 40, 6, 2, 50, 8), "layers 1 is below 2"),
        (Shape(2, 24, 40, 4, 2, 50, 8), "query heads"),
        (Shape(2, 24, 40, 6, 2, 50, 12), "no multiple of 8"),
        (Shape(2, 24, 40, 6, 2, 60, 8), "vocabulary stays"),
    ],
)
def test_a_shape_that_does_not_fit_is_refused(shape: Shape, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Padding(SMALL, shape, 1e-5)
