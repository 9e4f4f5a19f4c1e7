"""One training worker: what Ray Train runs on every rank. See `trainer.fit` for the driver's side.

The loop is our own rather than TRL's SFTTrainer: docs/training.md says what was tried and why.
"""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.distributed as dist

from ray_app.base.local_copy import local_model
from ray_app.errors import InputError, first_line
from ray_app.train import attention, recipes, state
from ray_app.train.batches import Step, plan_epoch
from ray_app.train.candidate_export import export_candidate
from ray_app.train.collate import Batch, collate
from ray_app.train.connect import connect
from ray_app.train.data import concatenate, unit_rows
from ray_app.train.deepspeed_config import deepspeed_config
from ray_app.train.head import output_scale
from ray_app.train.job import Job, plan_settings, rows_of
from ray_app.train.lora import add_adapters
from ray_app.train.mfu import mfu, shape_of, train_flops
from ray_app.train.model import JudgeModel, base_lm, build, fresh_buffers, prepare, random_model, restore_buffers
from ray_app.train.profile import profiled
from ray_app.train.schedule import lr_at
from ray_app.train.standby import MOVED, Moved
from ray_app.train.trackers import Tracker, open_trackers

log = logging.getLogger(__name__)
BUILDING = "model is built"


def run(config: dict[str, Any]) -> None:
    """Train loop of one rank (Ray Train calls it on every worker)."""
    import ray.train

    context = ray.train.get_context()
    orders: Any = config.get("orders")  # of workers that waited
    order, built = ray.get(orders.taken.remote()) if orders else None, None
    if order and order.early:
        built = build_early(order, orders)
        order = ray.get(orders.whole.remote())
    if orders and order is None:
        return  # nobody waits for it any more
    job: Job = order.job if order else config["job"]
    if state.read_fault(job.work_dir) is not None:
        return  # a restart would end in the same fault
    try:
        job = replace(job, seed_model=local_model(job.seed_model))
        if built is None:
            connect(job.settings, order and order.gpus)
        Worker(job, context.get_world_rank(), context.get_world_size(), built).train()
    except Exception as fault:
        tell(fault, job)
        raise


def tell(fault: BaseException, job: Job) -> None:
    """Write down a fault that no restart cures: the driver looks for it."""
    kinds = {Moved: MOVED, InputError: "input", FloatingPointError: "loss", torch.OutOfMemoryError: "memory"}
    kind = next((name for known, name in kinds.items() if isinstance(fault, known)), None)
    told = str(fault)
    if kind == "memory":
        advice = "lower train.tokens_per_batch, or set train.recompute or train.zero.offload"
        told = f"a GPU is out of memory ({first_line(fault)}): {advice}"
    if kind:
        state.write_fault(job.work_dir, kind, told)


@dataclass(frozen=True)
class Built:
    """A model that was built before its rows were known, and when that was done (Unix time)."""

    engine: Any
    model: JudgeModel
    at: float


def build_early(order: Any, orders: Any) -> Built:
    """The model of an early order (`standby_backend.Order`), while its rows are still chosen."""
    import ray

    try:
        job = replace(order.job, seed_model=local_model(order.job.seed_model))
        connect(job.settings, order.gpus)
        return Built(*start_engine(job, resuming=False), time.time())
    except Exception as fault:
        if whole := ray.get(orders.spoil.remote()):
            tell(fault, whole.job)
        raise


class Worker:
    """The state of one rank: engine, rows, plan and progress."""

    def __init__(self, job: Job, rank: int, world: int, built: Built | None = None) -> None:
        import ray.train

        self.job, self.settings, self.rank, self.world = job, job.settings, rank, world
        gpu = job.settings.use_gpu
        self.spent = waited_for(job.started, time.time(), built.at if built else 0.0) if job.started else {}
        self.device = torch.device("cuda", torch.cuda.current_device()) if gpu else torch.device("cpu")
        self.rows = concatenate(ray.get(list(job.rows)), unit_rows=unit_rows(job.settings.recipe))
        self.kernel = attention.choose(self.settings)
        checkpoint = ray.train.get_checkpoint()
        started = time.perf_counter()
        if built:
            self.engine, self.model = built.engine, built.model
        else:
            self.engine, self.model = start_engine(job, resuming=checkpoint is not None)
        self.progress = state.resume(self.engine, checkpoint)
        self.spent[BUILDING] = self.spent.get(BUILDING, 0.0) + time.perf_counter() - started
        self.note("model ready at step %d, %.1f s", self.progress.step, self.spent[BUILDING])
        self.working_since = time.perf_counter()
        self.recipe = recipes.make(self)
        self.trackers = self._open_trackers()
        self.clock, self.unlogged = time.perf_counter(), list[int]()

    def _open_trackers(self) -> list[Tracker]:
        if self.rank != 0:
            return []
        config = self.settings.model_dump(mode="json")
        folder = f"{self.job.work_dir}/curves"
        return open_trackers(self.settings.tracking, name=self.job.name, folder=folder, config=config)

    def train(self) -> None:
        """Steps from where the last checkpoint stopped up to `stop_at`, with checkpoints on the way."""
        self.engine.train()
        done = self.progress.step
        self.clock = time.perf_counter()
        for step in self._steps():
            with self._profiled(done + 1):
                self._one(done, step)
            done += 1
            every = self.settings.checkpoint_every
            if (every and done % every == 0) or done == self.job.stop_at:
                self._checkpoint(done)
                self.clock = time.perf_counter()
        for tracker in self.trackers:
            tracker.close()

    def _profiled(self, step: int) -> contextlib.AbstractContextManager[None]:
        if self.rank == 0 and step == self.settings.tracking.profile_step:
            return profiled(f"{self.job.work_dir}/profile", step)
        return contextlib.nullcontext()

    def _steps(self) -> Iterator[Step]:
        plan = plan_settings(self.settings, self.job.seed)
        lengths = self.rows.unit_lengths
        number = 0
        for epoch in range(self.settings.epochs):
            for step in plan_epoch(lengths.tolist(), plan, epoch):
                if self.progress.step <= number < self.job.stop_at:
                    yield step
                number += 1

    def _one(self, number: int, step: Step) -> None:
        s = self.settings
        rate = lr_at(number, lr=s.lr, lr_min=s.lr_min, warmup=s.warmup_steps, total=self.job.total_steps)
        for group in self.engine.optimizer.param_groups:
            group["lr"] = rate
        # Dropout of a step must not depend on whether the steps before it ran in this process.
        torch.manual_seed((self.job.seed + number * self.world + self.rank) % 2**63)
        sums = self._micro_batches(step)
        self.engine.step()
        self.progress.step, self.progress.epoch = number + 1, step.epoch + 1
        self.progress.tokens += int(self.rows.unit_lengths[step.units].sum())
        self.unlogged += rows_of(step.units, self.rows.unit_rows)
        if (number + 1) % s.log_every == 0 or number + 1 == self.job.stop_at:
            self._log(sums, rate)

    def _micro_batches(self, step: Step) -> dict[str, torch.Tensor]:
        """Forward and backward over this worker's share; returns the figures, one scalar each."""
        own = step.micro[self.rank]
        self.recipe.begin(step)
        sums: dict[str, torch.Tensor] = {}
        for i, units in enumerate(own):
            self.engine.set_gradient_accumulation_boundary(i == len(own) - 1)
            loss, parts = self.recipe.loss(self.batch(units), units)
            self.engine.backward(loss)
            for name, value in parts.items():
                sums[name] = sums.get(name, 0.0) + value.detach().float()
        return sums

    def batch(self, units: tuple[int, ...]) -> Batch:
        """The tensors of these units on this worker's device."""
        packed = self.settings.batching == "packed"
        pad_to = self.settings.tokens_per_batch if packed and self.settings.compile != "none" else None
        rows = rows_of(units, self.rows.unit_rows)
        return collate(self.rows, rows, packed=packed, kernel=self.kernel, pad_to=pad_to).to(self.device)

    def _log(self, sums: dict[str, torch.Tensor], rate: float) -> None:
        """One point of the curves. Reading the loss waits for the GPU, so this is where time is taken, too."""
        point = self._across_workers(sums)
        seconds = time.perf_counter() - self.clock
        lengths = self.rows.lengths[self.unlogged].tolist()
        norm = self.engine.get_global_grad_norm()
        point |= {
            "grad_norm": float("nan") if norm is None else float(norm),
            "lr": rate,
            "epoch": float(self.progress.epoch),
            "tokens_per_second": sum(lengths) / seconds,
        }
        if self.settings.use_gpu:
            flops = train_flops(self.model.size, lengths, **shape_of(base_lm(self.model.lm).config))
            point["mfu"] = mfu(flops, seconds, self.world)
            point["memory_gib"] = torch.cuda.max_memory_allocated() / 2**30
        if not math.isfinite(point["loss"]):
            raise FloatingPointError(f"the loss is {point['loss']} at step {self.progress.step}: lower train.lr")
        self.progress.history.append({"step": self.progress.step, **point})
        for tracker in self.trackers:
            tracker.log(self.progress.step, point)
        figures = " ".join(f"{name} {value:.4g}" for name, value in point.items())
        self.note("step %d/%d %s", self.progress.step, self.job.total_steps, figures)
        self.unlogged = []
        self.clock = time.perf_counter()

    def _across_workers(self, sums: dict[str, torch.Tensor]) -> dict[str, float]:
        """Figures summed over workers. A worker whose share was empty has none; it learns the names from rank 0."""
        names: list[Any] = [sorted(sums)]
        dist.broadcast_object_list(names, src=0)
        zero = torch.zeros((), device=self.device)
        values = torch.stack([torch.as_tensor(sums.get(name, zero), device=self.device) for name in names[0]])
        dist.all_reduce(values)
        return dict(zip(names[0], values.tolist(), strict=True))

    def _checkpoint(self, done: int) -> None:
        self.job.fence()  # a state that is saved takes the place of an older one, and that may be another driver's now
        if self.rank == 0:
            state.write_progress(self.job.work_dir, self.progress)
        if self.settings.use_gpu:
            torch.cuda.synchronize()  # so that the time of steps that were only queued is theirs
        # The candidate first: what a kill leaves between the two is then trained again, and never without its export.
        started = time.perf_counter()
        if self.job.export and (done == self.job.total_steps or self.job.candidates):
            export_candidate(self, done)
        exported = time.perf_counter()
        if self.settings.checkpoint_every:
            state.save(self.engine, self.job, self.progress)
        saved = time.perf_counter()
        self.note("step %d: export %.1f s, state %.1f s", done, exported - started, saved - exported)
        for name, seconds in (
            (state.STEPS, started - self.working_since),
            ("candidate is exported", exported - started),
            ("state is saved", saved - exported),
        ):
            self.spent[name] = self.spent.get(name, 0.0) + seconds
        if self.rank == 0:
            state.write_spent(self.job, self.spent)
        self.working_since = time.perf_counter()

    def note(self, message: str, *values: Any) -> None:
        """A log line, from rank 0 only."""
        if self.rank == 0:
            log.info(message, *values)


def waited_for(asked: float, now: float, built: float) -> dict[str, float]:
    """What the seconds since a job was asked for went into: the rest of building a model that was begun before (0: none
    was), and the start of the workers. All are Unix times. Pure.
    """
    passed = max(0.0, now - asked)
    late = min(passed, max(0.0, built - asked))
    return {"workers start": passed - late} | ({BUILDING: late} if built else {})


def start_engine(job: Job, resuming: bool) -> tuple[Any, JudgeModel]:
    """Build the sharded model and give it to DeepSpeed."""
    import deepspeed
    from transformers import AutoConfig

    settings = job.settings
    config = deepspeed_config(settings)
    if job.shape is not None:
        shape = AutoConfig.for_model(**job.shape)
        lm = random_model(shape, settings, config)
    else:
        shape = AutoConfig.from_pretrained(job.seed_model, revision=job.revision)
        # A checkpoint brings all weights with it, but for the frozen ones under LoRA.
        weights = not resuming or settings.lora is not None
        lm = build(job.seed_model, settings, config, weights=weights, revision=job.revision)
    if settings.lora is not None:
        lm = add_adapters(lm, settings.lora, job.seed)
    prepare(lm, settings)
    model = JudgeModel(lm, output_scale(shape))
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    engine, *_ = deepspeed.initialize(model=model, model_parameters=trained, config=config)
    restore_buffers(model, fresh_buffers(shape), engine.device)
    return engine, model
