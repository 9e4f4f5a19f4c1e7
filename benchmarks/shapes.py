"""Llama shapes by name, and how many parameters they have. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

POSITIONS = 8192


@dataclass(frozen=True)
class Shape:
    """Sizes of a Llama model with an output layer of its own."""

    layers: int
    width: int
    ffn: int
    heads: int
    kv_heads: int
    vocabulary: int
    head_width: int = 0  # 0: width / heads

    @property
    def head(self) -> int:
        """Width of one attention head."""
        return self.head_width or self.width // self.heads

    @property
    def block(self) -> int:
        """Parameters of one decoder block."""
        attention = 2 * self.width * self.head * (self.heads + self.kv_heads)
        return attention + 3 * self.width * self.ffn + 2 * self.width

    @property
    def parameters(self) -> int:
        """Parameters of the whole model."""
        return self.layers * self.block + 2 * self.vocabulary * self.width + self.width

    def config(self) -> dict[str, Any]:
        """The fields of a transformers config."""
        return {
            "model_type": "llama",
            "num_hidden_layers": self.layers,
            "hidden_size": self.width,
            "intermediate_size": self.ffn,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "head_dim": self.head,
            "vocab_size": self.vocabulary,
            "max_position_embeddings": POSITIONS,
            "tie_word_embeddings": False,
        }

    def __str__(self) -> str:
        sizes = (self.layers, self.width, self.ffn, self.heads, self.kv_heads, self.vocabulary, self.head)
        return ",".join(map(str, sizes))


SHAPES = {
    "3b": Shape(28, 3072, 8192, 24, 8, 49152),
    "8b": Shape(32, 4096, 14336, 32, 8, 128256),
    "8b-half": Shape(16, 4096, 14336, 32, 8, 128256),  # fits two cards of 80 GB without recompute
    "8b-smollm2": Shape(32, 4096, 14336, 32, 8, 49152),  # SmolLM2-135M can be padded into it (padding.py)
    "70b": Shape(80, 8192, 28672, 64, 8, 128256),
    "tiny": Shape(2, 64, 128, 4, 2, 512),
    # For rehearsals on processors, where vLLM's attention takes no heads narrower than 32. Both divide by two workers.
    "tiny-70b": Shape(4, 128, 256, 4, 2, 49664, 32),
    "tiny-8b": Shape(31, 640, 1600, 16, 4, 49152, 128),
}


def shape_of(text: str) -> Shape:
    """A shape by its name, or by `layers,width,ffn,heads,kv_heads,vocabulary[,head_width]`. Raises ValueError."""
    if text in SHAPES:
        return SHAPES[text]
    sizes = [int(part) for part in text.split(",")]
    if not 6 <= len(sizes) <= 7:
        raise ValueError(f"{text!r}: a shape is one of {', '.join(SHAPES)}, or six or seven numbers")
    return Shape(*sizes)
