"""Writes one candidate: gathers the weights of all ranks, verifies the folder, and places it. Workers only."""

from __future__ import annotations

import json
import shutil
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist

from ray_app.base.stores import filesystem, is_remote
from ray_app.train.candidates import MARKER, Candidate, folder_of, move_into_place
from ray_app.train.export import describe, plan_shards, shard_names, verify, write_weights
from ray_app.train.gather import gathered
from ray_app.train.lora import gathered_merged, merged_shape, merged_tensors, save_adapter
from ray_app.train.model import base_lm, torch_dtype
from ray_app.train.tensor_names import on_hub, shapes_on_hub

if TYPE_CHECKING:
    from ray_app.train.worker import Worker

ADAPTER_FOLDER = "adapter"  # beside the merged weights: the adapter alone


def export_candidate(worker: Worker, step: int) -> None:
    """Write, verify and place the HF folder of this step. Every rank must call this: weights are gathered together."""
    destination = folder_of(worker.job.work_dir, step)
    remote = is_remote(destination)
    temporary = Path(tempfile.mkdtemp(prefix="ste-export-")) if remote else Path(destination + ".partial")
    if worker.rank == 0:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
    _write(worker, temporary)
    if worker.rank == 0:
        loss = worker.progress.history[-1]["loss"] if worker.progress.history else float("nan")
        candidate = Candidate(step, worker.progress.epoch, worker.progress.tokens, loss, destination)
        (temporary / MARKER).write_text(json.dumps(asdict(candidate)))
        if remote:
            _upload(temporary, destination)
        else:
            move_into_place(temporary, Path(destination))
    dist.barrier()


def _write(worker: Worker, folder: Path) -> None:
    lm = base_lm(worker.model.lm)
    dtype = torch_dtype(worker.settings)
    limit = int(worker.settings.export_shard_gib * 2**30)
    if worker.settings.lora is not None:
        merged = merged_tensors(lm)
        shapes = {tensor.name: merged_shape(tensor) for tensor in merged}
        shards = plan_shards({name: _bytes(shape, dtype) for name, shape in shapes.items()}, limit)
        stream = gathered_merged(merged, shards, worker.rank, dtype)
    else:
        shapes = describe(lm)
        shards = plan_shards({name: _bytes(shape, dtype) for name, shape in shapes.items()}, limit)
        stream = gathered(lm, shards, worker.rank)
    if worker.rank == 0:
        write_weights((on_hub(lm, tensors) for tensors in stream), shard_names(len(shards)), folder)
        save_beside(worker.job.seed_model, worker.job.revision, type(lm).__name__, dtype, folder)
        verify(folder, shapes_on_hub(lm, shapes))
    else:
        for _ in stream:
            pass
    if worker.settings.lora is not None:
        save_adapter(worker.model.lm, folder / ADAPTER_FOLDER, worker.rank)


def _bytes(shape: tuple[int, ...], dtype: torch.dtype) -> int:
    size: int = dtype.itemsize
    for dimension in shape:
        size *= dimension
    return size


def save_beside(seed_model: str, revision: str | None, architecture: str, dtype: torch.dtype, folder: Path) -> None:
    """config.json, generation_config.json and the tokenizer with its chat template, as the seed model has them."""
    from transformers import AutoConfig, AutoTokenizer
    from transformers.utils import cached_file

    config = AutoConfig.from_pretrained(seed_model, revision=revision)
    config.dtype = dtype
    config.architectures = [architecture]
    config.save_pretrained(folder)
    AutoTokenizer.from_pretrained(seed_model, revision=revision).save_pretrained(folder)
    optional = {"_raise_exceptions_for_missing_entries": False}
    generation = cached_file(seed_model, "generation_config.json", revision=revision, **optional)
    if generation:
        shutil.copyfile(generation, folder / "generation_config.json")


def _upload(folder: Path, destination: str) -> None:
    fs, root = filesystem(destination)
    if fs.exists(root):
        fs.rm(root, recursive=True)
    files = sorted((f for f in folder.rglob("*") if f.is_file()), key=lambda file: file.name == MARKER)
    for file in files:
        fs.put_file(str(file), f"{root}/{file.relative_to(folder).as_posix()}")
    shutil.rmtree(folder)
