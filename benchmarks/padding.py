"""A small Llama's weights inside a larger shape, so that the larger model computes what the small one computes.

Everything new is zero, except where zeros alone would change the result:

- *Width*: RMSNorm divides by the root of the mean square, and the mean is now over more values. Norm weights are
  multiplied by sqrt(d / D), and eps by d / D (d, D: widths of the small and the large model).
- *Heads*: query head r of key-value head g stays with key-value head g, whatever the large model's ratio of the two is;
  the group's other query heads have zero output columns.
- *Head width*: a rotary pair (i, i + h/2) turns with theta^(-2i/h). In heads k times as wide the pair k·i has that
  frequency, so dimension i moves to k·i in its half. Scores are divided by the root of the head width: queries are
  multiplied by sqrt(k).
- *Layers*: a block whose output projections are zero adds nothing to the residual stream.
- *Tied embeddings* become two equal matrices.

The vocabulary stays: a new token would need a logit of its own, far below all others, and nothing in the stream is the
same for every input. (A constant that eps makes room for does it, until the first training moves it.)

In float32 logits agree to rounding. In bfloat16 the multiplied weights (norms, queries) are rounded once more.
Gradients of what is new are zero too, so that training changes what the small model has, and one thing besides: output
columns of a group's other query heads, whose zero queries look at all keys alike.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from shapes import Shape

Reader = Callable[[str], torch.Tensor]


def shape_of_config(config: Mapping[str, Any]) -> Shape:
    """The shape of a Llama's config.json."""
    heads, width = config["num_attention_heads"], config["hidden_size"]
    return Shape(
        config["num_hidden_layers"],
        width,
        config["intermediate_size"],
        heads,
        config.get("num_key_value_heads", heads),
        config["vocab_size"],
        config.get("head_dim") or width // heads,
    )


class Padding:
    """From one shape into another. Raises ValueError naming the size that does not fit."""

    def __init__(self, small: Shape, large: Shape, eps: float) -> None:
        self.small, self.large = small, large
        if small.vocabulary != large.vocabulary:
            raise ValueError(f"the vocabulary stays: {small.vocabulary} tokens, not {large.vocabulary}")
        for name in ("layers", "width", "ffn", "kv_heads"):
            if getattr(small, name) > getattr(large, name):
                raise ValueError(f"{name} {getattr(large, name)} is below {getattr(small, name)}")
        self.groups = (small.heads // small.kv_heads, large.heads // large.kv_heads)
        if self.groups[0] > self.groups[1]:
            raise ValueError(f"{self.groups[1]} query heads for each of keys are below {self.groups[0]}")
        if large.head % small.head:
            raise ValueError(f"head width {large.head} is no multiple of {small.head}")
        share = small.width / large.width
        self.eps, self.norm = eps * share, math.sqrt(share)
        self.query = math.sqrt(large.head / small.head)

    def config(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """The large model's config.json, from the small one's."""
        sizes = {name: value for name, value in self.large.config().items() if name != "max_position_embeddings"}
        return {**config, **sizes, "rms_norm_eps": self.eps}

    @functools.cached_property
    def sizes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of all tensors of the large model, by name, in the order of a checkpoint."""
        large = self.large
        query, key = large.heads * large.head, large.kv_heads * large.head
        found: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (large.vocabulary, large.width)}
        for layer in range(large.layers):
            block = {
                "input_layernorm": (large.width,),
                "self_attn.q_proj": (query, large.width),
                "self_attn.k_proj": (key, large.width),
                "self_attn.v_proj": (key, large.width),
                "self_attn.o_proj": (large.width, query),
                "post_attention_layernorm": (large.width,),
                "mlp.gate_proj": (large.ffn, large.width),
                "mlp.up_proj": (large.ffn, large.width),
                "mlp.down_proj": (large.width, large.ffn),
            }
            found |= {f"model.layers.{layer}.{name}.weight": size for name, size in block.items()}
        return found | {"model.norm.weight": (large.width,), "lm_head.weight": (large.vocabulary, large.width)}

    def tensor(self, name: str, read: Reader, dtype: torch.dtype) -> torch.Tensor:
        """One tensor of the large model. `read` gives the small model's by name, its output layer by its own name."""
        out = torch.zeros(self.sizes[name], dtype=torch.float32)
        part = name.removesuffix(".weight").rpartition(".")[2]
        if self._is_new_layer(name):
            return (out + 1 if part.endswith("norm") else out).to(dtype)
        given = read(name).float()
        width = self.small.width
        if part.endswith("norm"):
            out[:width] = given * self.norm
        elif part in ("q_proj", "k_proj", "v_proj"):
            rows = self._rows(self.groups if part == "q_proj" else (1, 1))
            out[rows, :width] = given * (self.query if part == "q_proj" else 1.0)
        elif part == "o_proj":
            out[:width, self._rows(self.groups)] = given
        else:
            out[: given.shape[0], : given.shape[1]] = given
        return out.to(dtype)

    def _is_new_layer(self, name: str) -> bool:
        parts = name.split(".")
        return parts[1] == "layers" and int(parts[2]) >= self.small.layers

    def _rows(self, groups: tuple[int, int]) -> torch.Tensor:
        """Where each row of a projection into heads stands in the large one. `groups`: heads of each key-value head."""
        small, large = self.small.head, self.large.head
        wider = large // small
        half = torch.arange(small // 2) * wider
        within = torch.cat([half, large // 2 + half])
        heads = [key * groups[1] + one for key in range(self.small.kv_heads) for one in range(groups[0])]
        return torch.cat([head * large + within for head in heads])

    def shards(self, plan: list[list[str]], read: Reader, dtype: torch.dtype) -> Iterator[dict[str, torch.Tensor]]:
        """The large model's tensors, one shard of the plan after the other."""
        for names in plan:
            yield {name: self.tensor(name, read, dtype) for name in names}
