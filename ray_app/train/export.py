"""A trained, sharded model as a Hugging Face folder: written shard by shard, verified, then moved into place.

No rank ever holds the whole model: parameters are gathered a few gigabytes at a time, and rank 0 writes them.
A kill at any point leaves either the old folder or the new one, never half of one: readers look at the final name
only, and `os.replace` gives it to a verified folder.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

INDEX = "model.safetensors.index.json"


class ExportError(RuntimeError):
    """An exported folder that is not what it should be. Names the file or tensor."""


def plan_shards(sizes: Mapping[str, int], limit: int) -> list[list[str]]:
    """Group tensors, in their order, into shards of at most `limit` bytes (a larger tensor has its own)."""
    shards: list[list[str]] = []
    room = 0
    for name, size in sizes.items():
        if not shards or size > room:
            shards.append([])
            room = limit
        shards[-1].append(name)
        room -= size
    return shards


def shard_names(count: int) -> list[str]:
    """File names as transformers spells them."""
    if count == 1:
        return ["model.safetensors"]
    return [f"model-{number:05d}-of-{count:05d}.safetensors" for number in range(1, count + 1)]


def write_weights(tensors: Iterator[dict[str, torch.Tensor]], names: list[str], folder: Path) -> None:
    """Write each yielded shard to its file, then the index. One shard is in memory at a time."""
    weight_map: dict[str, str] = {}
    total = 0
    for file, shard in zip(names, tensors, strict=True):
        save_file(shard, folder / file, metadata={"format": "pt"})
        (folder / file).chmod(0o644)  # safetensors writes for the owner only; engines may run as another user
        weight_map |= dict.fromkeys(shard, file)
        total += sum(tensor.numel() * tensor.element_size() for tensor in shard.values())
    if len(names) > 1:
        index = {"metadata": {"total_size": total}, "weight_map": weight_map}
        (folder / INDEX).write_text(json.dumps(index, indent=1, sort_keys=True))


def verify(folder: Path, expected: Mapping[str, tuple[int, ...]]) -> None:
    """Check an exported folder: every tensor present once, finite, of its shape; index complete; config there.

    Raises ExportError naming the first fault. Reads one tensor at a time.
    """
    if not (folder / "config.json").is_file():
        raise ExportError(f"{folder}: config.json is missing")
    seen: dict[str, str] = {}
    for file in sorted(folder.glob("*.safetensors")):
        _verify_file(file, expected, seen)
    missing = sorted(set(expected) - set(seen))
    if missing:
        raise ExportError(f"{folder}: tensor {missing[0]} is missing ({len(missing)} in all)")
    if len(set(seen.values())) > 1:
        _verify_index(folder, seen)


def _verify_file(file: Path, expected: Mapping[str, tuple[int, ...]], seen: dict[str, str]) -> None:
    try:
        with safe_open(file, framework="pt") as shard:
            for name in shard.keys():  # noqa: SIM118 (safe_open is no mapping)
                if name not in expected:
                    raise ExportError(f"{file.name}: unexpected tensor {name}")
                if name in seen:
                    raise ExportError(f"{file.name}: tensor {name} is already in {seen[name]}")
                tensor = shard.get_tensor(name)
                if tuple(tensor.shape) != tuple(expected[name]):
                    raise ExportError(f"{file.name}: {name} is {tuple(tensor.shape)}, not {tuple(expected[name])}")
                if not torch.isfinite(tensor).all():
                    raise ExportError(f"{file.name}: {name} has values that are not finite")
                seen[name] = file.name
    except ExportError:
        raise
    except Exception as fault:
        raise ExportError(f"{file.name} cannot be read: {fault}") from fault


def _verify_index(folder: Path, seen: Mapping[str, str]) -> None:
    try:
        index = json.loads((folder / INDEX).read_text())["weight_map"]
    except (OSError, ValueError, KeyError) as fault:
        raise ExportError(f"{folder / INDEX} cannot be read: {fault}") from fault
    if index != dict(seen):
        raise ExportError(f"{folder / INDEX} does not name every tensor in its file")


def describe(model: Any) -> dict[str, tuple[int, ...]]:
    """Shapes of parameters and stored buffers by their names in memory, shared ones (tied embeddings) once."""
    parameters = {name: tuple(getattr(p, "ds_shape", p.shape)) for name, p in model.named_parameters()}
    return parameters | {name: tuple(buffer.shape) for name, buffer in stored_buffers(model).items()}


def stored_buffers(model: Any) -> dict[str, torch.Tensor]:
    """Buffers that a checkpoint holds (a router's correction, say), by name; computed ones are left out."""
    stored = model.state_dict(keep_vars=True).keys() if any(True for _ in model.buffers()) else ()
    return {name: buffer for name, buffer in model.named_buffers() if name in stored}
