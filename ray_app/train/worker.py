"""One training worker: what Ray Train runs on every rank. See `trainer.fit` for the driver's side.

The loop is our own rather than TRL's SFTTrainer: docs/training.md says what was tried and why.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from ray_app.train import recipes, state
from ray_app.train.batches import PlanSettings, Step, plan_epoch
from ray_app.train.collate import Batch, collate
from ray_app.train.curves import Tracker, open_trackers
from ray_app.train.data import TokenRows, concatenate
from ray_app.train.deepspeed_config import deepspeed_config
from ray_app.train.job import Job
from ray_app.train.lora import add_adapters
from ray_app.train.mfu import mfu, shape_of, train_flops
from ray_app.train.model import JudgeModel, base_lm, build, prepare, random_model
from ray_app.train.schedule import lr_at
from ray_app.train.settings import TrainSettings

log = logging.getLogger(__name__)


def run(config: dict[str, Any]) -> None:
    """Train loop of one rank (Ray Train calls it on every worker)."""
    import ray.train

    job: Job = config["job"]
    context = ray.train.get_context()
    connect(job.settings)
    worker = Worker(job, context.get_world_rank(), context.get_world_size())
    worker.train()


def connect(settings: TrainSettings) -> None:
    """Threads, device, and DeepSpeed on the process group Ray Train made."""
    import deepspeed
    import deepspeed.ops

    if settings.use_gpu:
        import ray.train.torch

        torch.cuda.set_device(ray.train.torch.get_device())
        backend = "nccl"
    else:
        torch.set_num_threads(max(1, int(settings.cpus_per_worker)))
        # Its shared-memory collectives are C++ that DeepSpeed would compile now; gloo does without.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
        backend = "gloo"
    deepspeed.init_distributed(
        backend, auto_mpi_discovery=False, timeout=timedelta(seconds=settings.timeout_s), verbose=False
    )


class Worker:
    """The state of one rank: engine, rows, plan and progress."""

    def __init__(self, job: Job, rank: int, world: int) -> None:
        import ray.train

        self.job, self.settings, self.rank, self.world = job, job.settings, rank, world
        self.device = torch.device("cuda", torch.cuda.current_device()) if job.settings.use_gpu else torch.device("cpu")
        self.rows = concatenate(ray.get(list(job.rows)), unit_rows=recipes.unit_rows(job.settings.recipe))
        checkpoint = ray.train.get_checkpoint()
        self.engine, self.model = start_engine(job, resuming=checkpoint is not None)
        self.progress = state.resume(self.engine, checkpoint)
        self.recipe = recipes.make(self)
        self.trackers: list[Tracker] = []
        if rank == 0:
            self.trackers = open_trackers(
                self.settings.tracking,
                name=job.name,
                folder=f"{job.work_dir}/curves",
                config=self.settings.model_dump(mode="json"),
            )

    def train(self) -> None:
        """Steps from where the last checkpoint stopped up to `stop_at`, then the final checkpoint and export."""
        self.engine.train()
        for number, step in enumerate(self._steps(), start=self.progress.step):
            self._one(number, step)
            done = number + 1
            every = self.settings.checkpoint_every
            if (every and done % every == 0) or done == self.job.stop_at:
                self._checkpoint(done)
        for tracker in self.trackers:
            tracker.close()

    def _steps(self) -> Iterator[Step]:
        plan = plan_settings(self.settings, self.job.seed)
        lengths = unit_lengths(self.rows)
        first, number = self.progress.step, 0
        for epoch in range(self.settings.epochs):
            for step in plan_epoch(lengths, plan, epoch):
                if first <= number < self.job.stop_at:
                    yield step
                number += 1

    def _one(self, number: int, step: Step) -> None:
        s = self.settings
        started = time.perf_counter()
        rate = lr_at(number, lr=s.lr, lr_min=s.lr_min, warmup=s.warmup_steps, total=self.job.total_steps)
        for group in self.engine.optimizer.param_groups:
            group["lr"] = rate
        torch.manual_seed((self.job.seed + number * self.world + self.rank) % 2**63)  # dropout: the same after a resume
        losses = self._micro_batches(step)
        self.engine.step()
        self.progress.step = number + 1
        self.progress.epoch = step.epoch + 1.0
        self.progress.tokens += self._tokens(step.units)
        if (number + 1) % s.log_every == 0 or number + 1 == self.job.stop_at:
            self._log(step, losses, rate, time.perf_counter() - started)

    def _micro_batches(self, step: Step) -> dict[str, torch.Tensor]:
        own = step.micro[self.rank]
        share = self.recipe.share(step)
        sums: dict[str, torch.Tensor] = {}
        for i, units in enumerate(own):
            batch = self._batch(units)
            self.engine.set_gradient_accumulation_boundary(i == len(own) - 1)
            loss, parts = self.recipe.loss(batch, units, share)
            self.engine.backward(loss)
            for name, value in parts.items():
                sums[name] = sums.get(name, torch.zeros((), device=self.device)) + value.detach().float()
        return sums

    def _batch(self, units: tuple[int, ...]) -> Batch:
        packed = self.settings.batching == "packed"
        pad_to = self.settings.tokens_per_batch if packed and self.settings.compile != "none" else None
        return collate(self.rows, rows_of(units, self.rows.unit_rows), packed=packed, pad_to=pad_to).to(self.device)

    def _tokens(self, units: list[int]) -> int:
        return int(unit_lengths(self.rows)[units].sum())

    def _log(self, step: Step, sums: dict[str, torch.Tensor], rate: float, seconds: float) -> None:
        names = sorted(sums)
        values = torch.stack([sums[name] for name in names])
        dist.all_reduce(values)
        norm = self.engine.get_global_grad_norm()
        point = dict(zip(names, values.tolist(), strict=True))
        point |= {
            "grad_norm": float(norm) if norm is not None else 0.0,
            "lr": rate,
            "epoch": float(step.epoch),
            "tokens_per_second": self._tokens(step.units) / seconds,
        }
        if self.settings.use_gpu:
            lengths = self.rows.lengths[list(rows_of(tuple(step.units), self.rows.unit_rows))]
            flops = train_flops(self.model.size, lengths.tolist(), **shape_of(base_lm(self.model.lm).config))
            point["mfu"] = mfu(flops, seconds, self.world)
        self.progress.history.append({"step": self.progress.step, **point})
        for tracker in self.trackers:
            tracker.log(self.progress.step, point)
        if self.rank == 0:
            log.info("step %d/%d %s", self.progress.step, self.job.total_steps, _short(point))

    def _checkpoint(self, done: int) -> None:
        if self.settings.checkpoint_every:
            state.save(self.engine, self.job, self.progress)
        if done == self.job.total_steps or (self.job.candidates and self.settings.keep_candidates):
            from ray_app.train.candidates import export_candidate

            export_candidate(self, done)


def start_engine(job: Job, resuming: bool) -> tuple[Any, JudgeModel]:
    """Build the sharded model and give it to DeepSpeed."""
    import deepspeed
    from transformers import AutoConfig

    settings = job.settings
    config = deepspeed_config(settings)
    if job.shape is not None:
        lm = random_model(AutoConfig.for_model(**job.shape), settings, config)
    else:
        # A checkpoint brings all weights with it, but for the frozen ones under LoRA.
        lm = build(job.seed_model, settings, config, weights=not resuming or settings.lora is not None)
    if settings.lora is not None:
        lm = add_adapters(lm, settings.lora, job.seed)
    prepare(lm, settings)
    model = JudgeModel(lm)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    engine, *_ = deepspeed.initialize(model=model, model_parameters=trained, config=config)
    return engine, model


def plan_settings(settings: TrainSettings, seed: int) -> PlanSettings:
    return PlanSettings(
        workers=settings.workers,
        tokens_per_batch=settings.tokens_per_batch,
        accumulation=settings.accumulation,
        batch_rows=settings.batch_rows,
        batching=settings.batching,
        seed=seed,
    )


def unit_lengths(rows: TokenRows) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Tokens of each unit. A padded pair costs twice its longer row, so a pair's length is counted as that."""
    return rows.lengths.reshape(-1, rows.unit_rows).sum(axis=1)


def rows_of(units: tuple[int, ...], unit_rows: int) -> tuple[int, ...]:
    """Row numbers of units."""
    return tuple(unit * unit_rows + side for unit in units for side in range(unit_rows))


def _short(point: dict[str, float]) -> str:
    return " ".join(f"{name} {value:.4g}" for name, value in point.items())
