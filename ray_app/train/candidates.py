"""Candidates: every saved step of a fit as a Hugging Face folder, until the selection has committed one of them."""

from __future__ import annotations

import json
import shutil
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
from fsspec.core import url_to_fs

from ray_app.train.export import describe, move_into_place, plan_shards, shard_names, verify, write_weights
from ray_app.train.gather import gathered
from ray_app.train.lora import gathered_merged, merged_shape, merged_tensors, save_adapter
from ray_app.train.model import base_lm

if TYPE_CHECKING:
    from ray_app.train.worker import Worker

ADAPTER_FOLDER = "adapter"  # beside the merged weights: the adapter alone
MARKER = "candidate.json"  # written last: a folder without it is no candidate


@dataclass(frozen=True)
class Candidate:
    """One exported step: its number, epochs and tokens seen, training loss, and where its files lie."""

    step: int
    epoch: float
    tokens: int
    loss: float
    path: str


def folder_of(work_dir: str, step: int) -> str:
    return f"{work_dir}/candidates/step-{step:06d}"


def export_candidate(worker: Worker, step: int) -> None:
    """Write, verify and place the HF folder of this step. Every rank must call this: weights are gathered together."""
    destination = folder_of(worker.job.work_dir, step)
    remote = "://" in destination
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
    dtype = torch.bfloat16 if worker.settings.bf16 else torch.float32
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
        write_weights(stream, shard_names(len(shards)), folder)
        save_beside(worker.job.seed_model, worker.job.revision, type(lm).__name__, dtype, folder)
        verify(folder, shapes)
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
    filesystem, root = url_to_fs(destination)
    if filesystem.exists(root):
        filesystem.rm(root, recursive=True)
    files = sorted((f for f in folder.rglob("*") if f.is_file()), key=lambda file: file.name == MARKER)
    for file in files:
        filesystem.put_file(str(file), f"{root}/{file.relative_to(folder).as_posix()}")
    shutil.rmtree(folder)


def list_candidates(work_dir: str) -> list[Candidate]:
    """All complete candidates, by step."""
    filesystem, root = url_to_fs(f"{work_dir}/candidates")
    if not filesystem.exists(root):
        return []
    found = []
    for folder in filesystem.ls(root, detail=False):
        marker = f"{folder}/{MARKER}"
        if not folder.endswith(".partial") and filesystem.exists(marker):
            found.append(Candidate(**json.loads(filesystem.cat_file(marker))))
    return sorted(found, key=lambda candidate: candidate.step)


def place(candidate: Candidate, destination: str) -> None:
    """Make a candidate the checkpoint: moved on a disk, copied on an object store (marker last)."""
    if "://" not in destination:
        Path(destination).parent.mkdir(parents=True, exist_ok=True)
        move_into_place(Path(candidate.path), Path(destination))
        return
    filesystem, source = url_to_fs(candidate.path)
    _, target = url_to_fs(destination)
    for name in sorted(filesystem.find(source), key=lambda name: name.endswith(MARKER)):
        filesystem.copy(name, target + name.removeprefix(source))
