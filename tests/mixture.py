"""SmolLM2's weights laid into a mixture-of-experts class: equal experts, so that it answers as SmolLM2 does.

    python tests/mixture.py SOURCE TARGET      writes the model folder (used by the GPU runs too)

Mixtral's block weighs its chosen experts with weights that sum to one, and is a Llama layer otherwise.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import torch

EXPERTS = 4
FROM_EXPERT = {"w1": "gate_proj", "w2": "down_proj", "w3": "up_proj"}


def lay_into_mixture(source: Path, target: Path, experts: int = EXPERTS) -> None:
    """Write a Mixtral folder with the weights, tokenizer and template of the Llama at `source`."""
    from transformers import AutoConfig, AutoModelForCausalLM, MixtralConfig

    llama = AutoConfig.from_pretrained(source)
    shared = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
              "num_key_value_heads", "head_dim", "max_position_embeddings", "rms_norm_eps", "tie_word_embeddings",
              "bos_token_id", "eos_token_id", "pad_token_id", "rope_parameters")  # fmt: skip
    config = MixtralConfig(
        **{name: getattr(llama, name) for name in shared}, num_local_experts=experts, num_experts_per_tok=2,
        sliding_window=None, dtype="bfloat16",
    )  # fmt: skip
    weights = AutoModelForCausalLM.from_pretrained(source, dtype=torch.bfloat16).state_dict()
    torch.manual_seed(0)
    mixture: Any = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    mixture.save_pretrained(target)
    _overwrite(target, weights)
    for file in Path(source).iterdir():
        if file.name.startswith(("token", "special", "chat_template", "vocab", "merges", "generation")):
            shutil.copy(file, target / file.name)


def _overwrite(target: Path, weights: dict[str, torch.Tensor]) -> None:
    """Every tensor but the routers' from the dense model, by the names that the hub's Mixtral files have."""
    from safetensors.torch import load_file, save_file

    file = target / "model.safetensors"
    held = load_file(file)
    for name, tensor in held.items():
        block, _, rest = name.partition(".block_sparse_moe.")
        if rest.startswith("experts."):
            name_in_llama = f"{block}.mlp.{FROM_EXPERT[rest.split('.')[2]]}.weight"
        elif rest:
            continue  # a router: random, so that tokens take different ways
        else:
            name_in_llama = name
        assert tensor.shape == weights[name_in_llama].shape, name
        held[name] = weights[name_in_llama].clone()
    save_file(held, file, metadata={"format": "pt"})


if __name__ == "__main__":
    lay_into_mixture(Path(sys.argv[1]), Path(sys.argv[2]))
