"""Encoding of training files: Ray tasks, one a file; few rows in place. Tokens stay in the object store."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import ray
from huggingface_hub import hf_hub_download

from ray_app.base.local_copy import local_model
from ray_app.base.stores import filesystem
from ray_app.errors import InputError, first_line
from ray_app.train.check import ModelFacts
from ray_app.train.data import IN_PLACE, concatenate, encode_table, read_rows, unit_rows
from ray_app.train.settings import TrainSettings
from ray_app.train.trainable import tokenizer_of

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
    arguments = (seed_model, revision, settings.recipe, settings.sequence_length, template)
    if _rows(files) <= IN_PLACE:
        encoded = [_encode_file(file, *arguments) for file in files]
        refs, summaries = [ray.put(table) for table, _ in encoded], [summary for _, summary in encoded]
    else:
        task = ray.remote(num_cpus=1)(_encode_file).options(num_returns=2)
        pairs = [task.remote(file, *arguments) for file in files]
        refs, summaries = [table for table, _ in pairs], [_arrived(summary) for _, summary in pairs]
    lengths = [length for units, _ in summaries for length in units]
    return refs, lengths, [fault for _, faults in summaries for fault in faults]


def _rows(files: Sequence[str]) -> int:
    """Rows by the files' footers; a file that is no Parquet file has none, and is refused where it is read."""
    total = 0
    for file in files:
        fs, path = filesystem(file)
        with contextlib.suppress(pa.ArrowInvalid), fs.open(path, "rb") as opened:
            total += pq.read_metadata(opened).num_rows
    return total


def _arrived(summary: Any) -> tuple[list[int], Quarantine]:
    try:
        found: tuple[list[int], Quarantine] = ray.get(summary)
    except ray.exceptions.RayTaskError as fault:
        raise fault.cause if isinstance(fault.cause, InputError) else fault from None
    return found


def _encode_file(
    file: str, seed_model: str, revision: str | None, recipe: str, sequence_length: int, template: dict[str, Any]
) -> tuple[pa.Table, tuple[list[int], Quarantine]]:
    table, quarantine = encode_table(
        read_rows(file),
        tokenizer_of(seed_model, revision),
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
    seed_model = local_model(seed_model, weights=False)
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
    fs, path = filesystem(uri)
    if not fs.exists(path):
        raise InputError(f"training set file {uri} does not exist")
    with fs.open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
