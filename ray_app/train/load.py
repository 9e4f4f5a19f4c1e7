"""Seed weights into a sharded model: every rank reads the bytes of its own shard, so no rank holds the model.

A node reads each weight file at most once (its ranks read disjoint parts); safetensors files are memory-mapped.
Models whose files do not name their parameters one to one (some mixtures of experts, .bin files) go through
transformers' own ZeRO-3 loading instead.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from ray_app.errors import InputError
from ray_app.train.export import INDEX, stored_buffers


def weight_files(seed_model: str, revision: str | None = None) -> dict[str, Path] | None:
    """File of every tensor of a safetensors model (folder or hub id); None when it has no safetensors."""
    from transformers.utils import cached_file

    weight_map = _index(seed_model, revision)
    if weight_map is not None:
        names = sorted(set(weight_map.values()))
        found = {name: cached_file(seed_model, name, revision=revision) for name in names}
        return {tensor: Path(found[file]) for tensor, file in weight_map.items()}
    single = _optional(seed_model, "model.safetensors", revision)
    if single is None:
        return None
    with safe_open(single, framework="pt") as file:
        return dict.fromkeys(file.keys(), single)


def tensor_names(seed_model: str, revision: str | None = None) -> set[str] | None:
    """Names of the tensors of a safetensors model; None when it has no safetensors. Of a model in several files only
    the index is read: whoever asks for names downloads no weights.
    """
    found = _index(seed_model, revision) or weight_files(seed_model, revision)
    return None if found is None else set(found)


def _index(seed_model: str, revision: str | None) -> dict[str, str] | None:
    """Name of the file of every tensor, where a model has several."""
    index = _optional(seed_model, INDEX, revision)
    return None if index is None else dict(json.loads(index.read_text(encoding="utf-8"))["weight_map"])


def _optional(seed_model: str, name: str, revision: str | None) -> Path | None:
    from transformers.utils import cached_file

    found = cached_file(seed_model, name, revision=revision, _raise_exceptions_for_missing_entries=False)
    return Path(found) if found else None


def empty_model(config: Any, dtype: torch.dtype, attention: str, deepspeed_config: Mapping[str, Any] | None) -> Any:
    """A causal LM without its weights; with a DeepSpeed config, every parameter is sharded as it is made."""
    import deepspeed
    from transformers import AutoModelForCausalLM
    from transformers.initialization import no_init_weights

    with ExitStack() as stack:
        stack.enter_context(no_init_weights())
        if deepspeed_config is not None:
            stack.enter_context(deepspeed.zero.Init(config_dict_or_path=dict(deepspeed_config)))
        lm = AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation=attention)
    lm.tie_weights()
    return lm


def fill(lm: Any, files: Mapping[str, Path]) -> None:
    """Read this rank's part of every parameter. Raises InputError naming a tensor of the wrong shape."""
    by_file: dict[Path, list[tuple[str, Any]]] = {}
    for name, parameter in lm.named_parameters():
        by_file.setdefault(files[name], []).append((name, parameter))
    for file, parameters in by_file.items():
        with safe_open(file, framework="pt") as handle:
            for name, parameter in parameters:
                _fill_one(handle.get_slice(name), name, parameter)


def _fill_one(source: Any, name: str, parameter: Any) -> None:
    shape = tuple(source.get_shape())
    wanted = tuple(getattr(parameter, "ds_shape", parameter.shape))
    if shape != wanted:
        raise InputError(f"judge.model: tensor {name} has shape {shape}, the config asks for {wanted}")
    with torch.no_grad():
        if not hasattr(parameter, "ds_tensor"):
            parameter.copy_(source[:])
            return
        shard = parameter.ds_tensor
        start = torch.distributed.get_rank(parameter.ds_process_group) * shard.ds_numel
        stop = min(start + shard.ds_numel, parameter.ds_numel)
        if start < stop:
            shard[: stop - start].copy_(read_flat(source, start, stop))


def read_flat(source: Any, start: int, stop: int) -> torch.Tensor:
    """Elements [start, stop) of a safetensors slice, flattened, reading only the rows they lie in."""
    shape = source.get_shape()
    if len(shape) < 2:
        flat: torch.Tensor = source[start:stop] if shape else source[:].reshape(1)
        return flat
    width = math.prod(shape[1:])
    first = start // width
    rows = source[first : -(-stop // width)].reshape(-1)
    part: torch.Tensor = rows[start - first * width : stop - first * width]
    return part


def can_fill(lm: Any, files: Mapping[str, Path] | None) -> bool:
    """Whether the files name the model's parameters one to one, and it has no buffers besides that come from them."""
    return files is not None and not stored_buffers(lm) and all(name in files for name, _ in lm.named_parameters())
