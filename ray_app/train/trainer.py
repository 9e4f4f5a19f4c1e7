"""The driver's side of training: encode, start Ray Train, choose a candidate, leave one checkpoint behind.

    result = fit(settings.train, seed_model="…", train_files=[…], state_dir="…", checkpoint_dir="…",
                 run_name="…", seed=0, chat_template_kwargs={})

Ray must be initialised. The same call again continues where the last one was killed, or returns at once when its
checkpoint is committed.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import pyarrow as pa
import ray
from fsspec.core import url_to_fs

from ray_app.errors import InputError, RunError
from ray_app.train.batches import total_steps
from ray_app.train.candidates import Candidate, list_candidates, place
from ray_app.train.check import ModelFacts, check
from ray_app.train.data import concatenate, encode_table, read_rows
from ray_app.train.job import Job, fit_id
from ray_app.train.settings import TrainSettings
from ray_app.train.state import RAY_RUN, read_progress

log = logging.getLogger(__name__)
RECORD = "training.json"  # in the checkpoint folder: the result, and which fit it came from


@dataclass(frozen=True)
class TrainResult:
    """What a fit did. `losses` has one number a logged step; `quarantine` are rows that could not be encoded."""

    rows: int
    steps: int
    epochs: float
    tokens: int
    seconds: float
    losses: list[float]
    metrics: list[dict[str, float]]
    candidates: list[Candidate]
    selected: int
    quarantine: list[dict[str, str]] = field(default_factory=list)


def fit(
    settings: TrainSettings,
    *,
    seed_model: str,
    train_files: Sequence[str],
    state_dir: str,
    checkpoint_dir: str,
    run_name: str,
    seed: int,
    chat_template_kwargs: Mapping[str, Any],
    on_metrics: Callable[[dict[str, float]], None] | None = None,
) -> TrainResult:
    """Fine-tune `seed_model` on `train_files` and leave a Hugging Face folder at `checkpoint_dir`.

    `state_dir` and `checkpoint_dir` are paths every node sees, or fsspec URIs. Raises InputError (settings, files),
    RunError (no row is left to train on; workers kept dying).
    """
    started = time.monotonic()
    template = dict(chat_template_kwargs)
    check(settings, model_facts(seed_model), ray.cluster_resources())
    files = [(name, _hash(name)) for name in train_files]
    identity = fit_id(settings, seed_model, files, seed, template)
    committed = read_record(checkpoint_dir, identity)
    if committed is not None:
        return committed
    refs, lengths, rows, quarantine = encode_files(settings, seed_model, train_files, template)
    if not lengths:
        raise RunError(f"no row of the training set can be trained on: {len(quarantine)} quarantined")
    steps = plan_steps(settings, lengths, seed)
    work_dir = f"{_absolute(state_dir)}/{identity}"
    job = Job(settings, seed_model, run_name, seed, refs, work_dir, steps, steps)
    log.info("training %s: %d rows, %d steps on %d workers", run_name, rows, steps, settings.workers)
    run_workers(job)
    progress = read_progress(work_dir, job.stop_at)
    candidates = list_candidates(work_dir)
    chosen = candidates[-1]
    result = TrainResult(
        rows=rows,
        steps=progress.step,
        epochs=progress.epoch,
        tokens=progress.tokens,
        seconds=time.monotonic() - started,
        losses=[point["loss"] for point in progress.history],
        metrics=progress.history,
        candidates=candidates,
        selected=chosen.step,
        quarantine=quarantine,
    )
    commit(result, chosen, checkpoint_dir, identity, work_dir)
    if on_metrics:
        for point in result.metrics:
            on_metrics(point)
    return result


def run_workers(job: Job) -> None:
    """One Ray Train run over all workers, up to `job.stop_at`. Raises RunError when it fails for good."""
    from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    from ray_app.train import worker

    settings = job.settings
    trainer = TorchTrainer(
        worker.run,
        train_loop_config={"job": job},
        torch_config=TorchConfig(backend="nccl" if settings.use_gpu else "gloo", timeout_s=int(settings.timeout_s)),
        scaling_config=ScalingConfig(
            num_workers=settings.workers,
            use_gpu=settings.use_gpu,
            resources_per_worker={
                "CPU": settings.cpus_per_worker,
                **({"GPU": 1} if settings.use_gpu else {}),
            },
        ),
        run_config=RunConfig(
            name=RAY_RUN,
            storage_path=job.work_dir,
            checkpoint_config=CheckpointConfig(num_to_keep=2),
            failure_config=FailureConfig(max_failures=settings.max_failures),
            worker_runtime_env={"env_vars": worker_environment(settings)},
        ),
    )
    try:
        trainer.fit()
    except Exception as fault:
        cause = str(fault).strip().splitlines()
        raise RunError(f"training failed: {cause[-1] if cause else type(fault).__name__}") from fault


def worker_environment(settings: TrainSettings, driver: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Environment of the workers. Keys and tokens come from the cluster's own environment, never through here."""
    environment = {"TOKENIZERS_PARALLELISM": "false"}
    if "HF_HUB_OFFLINE" in driver:
        environment["HF_HUB_OFFLINE"] = driver["HF_HUB_OFFLINE"]
    if not settings.use_gpu:
        threads = str(max(1, int(settings.cpus_per_worker)))
        environment |= {
            "DS_ACCELERATOR": "cpu",
            "LOCAL_SIZE": str(settings.workers),
            "OMP_NUM_THREADS": threads,
        }
    return environment


def encode_files(
    settings: TrainSettings, seed_model: str, files: Sequence[str], template: dict[str, Any]
) -> tuple[list[Any], list[int], int, list[dict[str, str]]]:
    """Encode all files as Ray tasks. Returns table refs, the tokens of each unit, rows used, quarantine."""
    task = ray.remote(num_cpus=1)(_encode_file).options(num_returns=2)
    pairs = [task.remote(file, seed_model, settings.recipe, settings.sequence_length, template) for file in files]
    tables, lengths, quarantine = [], [], []
    for table_ref, info_ref in pairs:
        try:
            units, faults = ray.get(info_ref)
        except ray.exceptions.RayTaskError as fault:
            raise fault.cause if isinstance(fault.cause, InputError) else fault from None
        tables.append(table_ref)
        lengths += units
        quarantine += faults
    return tables, lengths, len(lengths), quarantine


def _encode_file(
    file: str, seed_model: str, recipe: str, sequence_length: int, template: dict[str, Any]
) -> tuple[pa.Table, tuple[list[int], list[dict[str, str]]]]:
    from transformers import AutoTokenizer

    from ray_app.train.recipes import unit_rows
    from ray_app.train.worker import unit_lengths

    table, quarantine = encode_table(
        read_rows(file),
        AutoTokenizer.from_pretrained(seed_model),
        recipe=recipe,
        sequence_length=sequence_length,
        chat_template_kwargs=template,
    )
    return table, (unit_lengths(concatenate([table], unit_rows(recipe))).tolist(), quarantine)


def plan_steps(settings: TrainSettings, lengths: Sequence[int], seed: int) -> int:
    """Optimizer steps of the whole fit."""
    from ray_app.train.worker import plan_settings

    return total_steps(lengths, plan_settings(settings, seed), settings.epochs, settings.max_steps)


def model_facts(seed_model: str) -> ModelFacts:
    """Facts of a model's config. Raises InputError when it cannot be read."""
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(seed_model)
    except (OSError, ValueError) as fault:
        raise InputError(f"judge.model: {seed_model} cannot be read: {str(fault).splitlines()[0]}") from fault
    return ModelFacts(
        max_positions=getattr(config, "max_position_embeddings", 2**31),
        layers=config.num_hidden_layers,
        attention_heads=config.num_attention_heads,
    )


def read_record(checkpoint_dir: str, identity: str) -> TrainResult | None:
    """The result of a committed fit with this identity."""
    filesystem, root = url_to_fs(checkpoint_dir)
    if not filesystem.exists(f"{root}/{RECORD}"):
        return None
    record = json.loads(filesystem.cat_file(f"{root}/{RECORD}"))
    if record.pop("fit") != identity:
        return None
    record["candidates"] = [Candidate(**candidate) for candidate in record["candidates"]]
    return TrainResult(**record)


def commit(result: TrainResult, chosen: Candidate, checkpoint_dir: str, identity: str, work_dir: str) -> None:
    """Place the chosen candidate with its record, then drop the training state: last and best stay."""
    filesystem, source = url_to_fs(chosen.path)
    record = {"fit": identity, **asdict(result)}
    with filesystem.open(f"{source}/{RECORD}", "w") as file:
        json.dump(record, file)
    place(chosen, checkpoint_dir)
    last = result.candidates[-1]
    for candidate in result.candidates:
        if candidate not in (last, chosen):
            _remove(candidate.path)
    _remove(f"{work_dir}/{RAY_RUN}")


def _remove(uri: str) -> None:
    filesystem, path = url_to_fs(uri)
    if filesystem.exists(path):
        filesystem.rm(path, recursive=True)


def _absolute(uri: str) -> str:
    return uri if "://" in uri else os.path.abspath(uri)


def _hash(uri: str) -> str:
    filesystem, path = url_to_fs(uri)
    if not filesystem.exists(path):
        raise InputError(f"training set file {uri} does not exist")
    return hashlib.sha256(filesystem.cat_file(path)).hexdigest()
