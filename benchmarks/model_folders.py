"""Model folders of a given Llama shape, with the tokenizer of a small local model. Needs no network.

    python benchmarks/model_folders.py empty  --shape 70b --like MODEL --output DIR          no weights, for random ones
    python benchmarks/model_folders.py padded --shape 8b-smollm2 --like MODEL --output DIR   MODEL's weights inside it

An `empty` folder's tokenizer knows as many tokens as the shape, for random weights draw all of them. A `padded` model
computes what MODEL computes (padding.py).
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from padding import Padding, shape_of_config
from safetensors import safe_open
from shapes import Shape, shape_of

from ray_app.train.export import plan_shards, shard_names, write_weights

SHARD = 4 * 2**30  # bytes
BESIDE = ("chat_template.jinja", "generation_config.json", "tokenizer.json", "tokenizer_config.json")


def empty(shape: Shape, like: Path, output: Path) -> None:
    """A folder with config and tokenizer. Raises ValueError where the shape has fewer tokens than the tokenizer."""
    copy_beside(like, output)
    config = json.loads((like / "config.json").read_text())
    (output / "config.json").write_text(json.dumps({**config, **shape.config()}, indent=1))
    file = output / "tokenizer.json"
    tokenizer = json.loads(file.read_text())
    words = tokenizer["model"]["vocab"]
    if len(words) > shape.vocabulary:
        raise ValueError(f"{shape.vocabulary} tokens are fewer than the tokenizer's {len(words)}")
    words |= {f"unused{number}": number for number in range(len(words), shape.vocabulary)}
    file.write_text(json.dumps(tokenizer, ensure_ascii=False))


def padded(shape: Shape, like: Path, output: Path, dtype: torch.dtype) -> Padding:
    """A folder with the weights of `like` inside the shape."""
    config = json.loads((like / "config.json").read_text())
    padding = Padding(shape_of_config(config), shape, config["rms_norm_eps"])
    copy_beside(like, output)
    told = {**padding.config(config), "dtype": str(dtype).removeprefix("torch.")}
    (output / "config.json").write_text(json.dumps(told, indent=1))
    with safe_open(like / "model.safetensors", framework="pt") as file:
        held = set(file.keys())

        def read(name: str) -> torch.Tensor:
            tied = name == "lm_head.weight" and name not in held
            tensor: torch.Tensor = file.get_tensor("model.embed_tokens.weight" if tied else name)
            return tensor

        sizes = {name: torch.Size(size).numel() * dtype.itemsize for name, size in padding.sizes.items()}
        plan = plan_shards(sizes, SHARD)
        write_weights(padding.shards(plan, read, dtype), shard_names(len(plan)), output)
    return padding


def copy_beside(like: Path, output: Path) -> None:
    """Tokenizer, template and the like."""
    output.mkdir(parents=True)
    for name in BESIDE:
        if (like / name).exists():
            shutil.copyfile(like / name, output / name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=("empty", "padded"))
    parser.add_argument("--shape", required=True, help="a name of shapes.py, or its numbers")
    parser.add_argument("--like", type=Path, required=True, help="folder of a small Llama in one safetensors file")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16")
    options = parser.parse_args()
    shape = shape_of(options.shape)
    if options.kind == "empty":
        empty(shape, options.like, options.output)
    else:
        padded(shape, options.like, options.output, getattr(torch, options.dtype))
    print(f"{options.output}: {options.kind}, {shape.parameters / 1e9:.2f}B parameters", flush=True)


if __name__ == "__main__":
    main()
