"""Encoding of training files as Ray tasks, one a file. Tokens stay in Ray's object store, once a node."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import ray
from fsspec.core import url_to_fs
from huggingface_hub import hf_hub_download

from ray_app.errors import InputError, first_line
from ray_app.train.check import ModelFacts
from ray_app.train.data import concatenate, encode_table, read_rows, unit_rows
from ray_app.train.settings import TrainSettings

Quarantine = list[dict[str, str]]


def encode_files(
    settings: TrainSettings,
    seed_model: str,
    files: Sequence[str],
    template: dict[str, Any],
    revision: str | None = None,
) -> tuple[list[Any], list[int], Quarantine]:
    """Encode all files. Returns refs of `ENCODED` tables, the tokens of each unit, and rows for the quarantine.

    Raises InputError for a file that is not a training set.
    """
    task = ray.remote(num_cpus=1)(_encode_file).options(num_returns=2)
    arguments = (seed_model, revision, settings.recipe, settings.sequence_length, template)
    pairs = [task.remote(file, *arguments) for file in files]
    lengths: list[int] = []
    quarantine: Quarantine = []
    for _, summary in pairs:
        try:
            units, faults = ray.get(summary)
        except ray.exceptions.RayTaskError as fault:
            raise fault.cause if isinstance(fault.cause, InputError) else fault from None
        lengths += units
        quarantine += faults
    return [table for table, _ in pairs], lengths, quarantine


def _encode_file(
    file: str, seed_model: str, revision: str | None, recipe: str, sequence_length: int, template: dict[str, Any]
) -> tuple[pa.Table, tuple[list[int], Quarantine]]:
    from transformers import AutoTokenizer

    table, quarantine = encode_table(
        read_rows(file),
        AutoTokenizer.from_pretrained(seed_model, revision=revision),
        recipe=recipe,
        sequence_length=sequence_length,
        chat_template_kwargs=template,
    )
    return table, (concatenate([table], unit_rows(recipe)).unit_lengths.tolist(), quarantine)


def model_facts(seed_model: str, revision: str | None = None) -> ModelFacts:
    """Facts of a model's config. Raises InputError when it cannot be read."""
    try:
        config = _config(seed_model, revision)
    except (OSError, ValueError) as fault:
        raise InputError(f"judge.model: {seed_model} cannot be read: {first_line(fault)}") from fault
    return ModelFacts(
        max_positions=config.get("max_position_embeddings", 2**31),
        layers=config["num_hidden_layers"],
        attention_heads=config["num_attention_heads"],
    )


def _config(seed_model: str, revision: str | None) -> Mapping[str, Any]:
    """config.json as it stands, where it says all in the usual names: transformers' own reading imports PyTorch, for
    seconds at the start of every command. It is asked where a model has names of its own (GPT-2's `n_layer`), leaves
    something to its class's defaults, or is of a type without a folder in transformers.
    """
    names = ("max_position_embeddings", "num_hidden_layers", "num_attention_heads")
    folder = Path(seed_model).expanduser()
    file = folder / "config.json" if folder.is_dir() else hf_hub_download(seed_model, "config.json", revision=revision)
    config: dict[str, Any] = json.loads(Path(file).read_text(encoding="utf-8"))
    if config.keys() >= set(names) and _has_folder(str(config.get("model_type", ""))):
        return config
    from transformers import AutoConfig

    read = AutoConfig.from_pretrained(seed_model, revision=revision).get_text_config(decoder=True)
    return {name: getattr(read, name) for name in names if hasattr(read, name)}


def _has_folder(model_type: str) -> bool:
    """Whether transformers knows a model type by its very name; found without importing it."""
    package = importlib.util.find_spec("transformers")
    roots = package.submodule_search_locations if package and model_type.isidentifier() else None
    return any(Path(root, "models", model_type).is_dir() for root in roots or ())


def hash_file(uri: str) -> str:
    """SHA-256 of a training file. Raises InputError when it is not there."""
    filesystem, path = url_to_fs(uri)
    if not filesystem.exists(path):
        raise InputError(f"training set file {uri} does not exist")
    with filesystem.open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
