"""What is minimised: the SFT and DPO losses, and the reference log-probabilities DPO needs once.

DeepSpeed averages gradients over workers. A recipe therefore scales its loss by the number of workers over the whole
step's count of targets (or pairs), which every worker knows from the plan: how rows were packed then changes nothing.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
import torch.distributed as dist
from torch.nn.functional import logsigmoid

from ray_app.base.stores import filesystem
from ray_app.run.storage import write_bytes_atomic
from ray_app.train.batches import Step, deal, pack
from ray_app.train.collate import Batch

if TYPE_CHECKING:
    from ray_app.train.worker import Worker

Parts = dict[str, torch.Tensor]
Floats = np.ndarray[Any, np.dtype[np.float64]]


class Recipe(Protocol):
    """A training objective."""

    def begin(self, step: Step) -> None:
        """Take note of the step whose micro-batches come next."""

    def loss(self, batch: Batch, units: tuple[int, ...]) -> tuple[torch.Tensor, Parts]:
        """The loss to differentiate, and this batch's part of each figure (they are summed over batches, workers)."""


def make(worker: Worker) -> Recipe:
    return Dpo(worker) if worker.settings.recipe == "dpo" else Sft(worker)


class Sft:
    """Mean negative log-likelihood of the step's completion tokens, over all workers."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self.targets = worker.rows.lengths - worker.rows.prompts
        self.weight = 0.0

    def begin(self, step: Step) -> None:
        self.weight = self.worker.world / float(self.targets[step.units].sum())

    def loss(self, batch: Batch, units: tuple[int, ...]) -> tuple[torch.Tensor, Parts]:
        nll = self.worker.engine(batch=batch, summed=True)
        loss = nll * (self.weight if batch.rows else 0.0)
        return loss, {"loss": loss / self.worker.world}


class Dpo:
    """DPO with an NLL term (Rafailov et al., arXiv 2305.18290; Pang et al., arXiv 2404.19733).

    mean over pairs of −log σ(β·margin) + nll_weight · mean NLL of the chosen, over their tokens or over the pairs
    (`dpo.nll_mean`), where the margin is that of the log-ratios to the model that training begins with. Those reference
    log-probabilities are computed once, before the first step.
    """

    def __init__(self, worker: Worker) -> None:
        self.worker, self.settings = worker, worker.settings.dpo
        self.chosen_targets = (worker.rows.lengths - worker.rows.prompts)[0::2].astype(np.float64)
        self.reference = torch.from_numpy(_reference(worker)).to(worker.device, torch.float32)
        self.per_pair = self.per_token = 0.0

    def begin(self, step: Step) -> None:
        self.per_pair = 1.0 / len(step.units)
        self.per_token = 1.0 / float(self.chosen_targets[step.units].sum())

    def loss(self, batch: Batch, units: tuple[int, ...]) -> tuple[torch.Tensor, Parts]:
        nll = self.worker.engine(batch=batch, summed=False)
        if not batch.rows:
            return nll.sum() * 0.0, {}
        logps = row_logps(nll, batch)
        pairs = torch.tensor(units, device=logps.device)
        ratio = logps.view(-1, 2) - self.reference.view(-1, 2)[pairs]
        margin = self.settings.beta * (ratio[:, 0] - ratio[:, 1])
        preference = -logsigmoid(margin).sum() * self.per_pair
        likelihood = -(logps[0::2] * self._nll_weights(units).to(logps)).sum()
        loss = preference + self.settings.nll_weight * likelihood
        parts = {
            "loss": loss,
            "dpo_loss": preference,
            "nll": likelihood,
            "margin": margin.sum() * self.per_pair,
            "preference_accuracy": (margin > 0).sum() * self.per_pair,
        }
        return loss * self.worker.world, parts

    def _nll_weights(self, units: tuple[int, ...]) -> torch.Tensor:
        """(units,) what a chosen row's summed NLL weighs in the step's mean."""
        if self.settings.nll_mean == "tokens":
            return torch.full((len(units),), self.per_token)
        return torch.from_numpy(self.per_pair / self.chosen_targets[list(units)])


def row_logps(nll: torch.Tensor, batch: Batch) -> torch.Tensor:
    """Log-probability of each row's completion, (rows,) fp32."""
    zeros = torch.zeros(batch.rows, device=nll.device, dtype=nll.dtype)
    return zeros.index_add(0, batch.row_of_target, -nll)


def _reference(worker: Worker) -> Floats:
    """Reference log-probabilities of all rows: read back after a restart, else computed by the untrained model."""
    fs, root = filesystem(f"{worker.job.work_dir}/reference.npy")
    if fs.exists(root):
        stored: Floats = np.load(io.BytesIO(fs.cat_file(root)))
        return stored
    if worker.progress.step:
        raise RuntimeError(f"{root} is missing, and the model is already trained: delete {worker.job.work_dir}")
    values = _compute_reference(worker)
    dist.barrier()  # nobody may still look for the file when it appears
    if worker.rank == 0:
        buffer = io.BytesIO()
        np.save(buffer, values)
        write_bytes_atomic(f"{worker.job.work_dir}/reference.npy", buffer.getvalue())
    return values


def _compute_reference(worker: Worker) -> Floats:
    lengths = worker.rows.lengths.reshape(-1, 2).sum(axis=1)
    batches = pack(range(len(lengths)), lengths.tolist(), worker.settings.tokens_per_batch)
    values = torch.zeros(len(worker.rows), dtype=torch.float64)
    worker.engine.eval()
    with torch.no_grad():
        for units in deal(batches, worker.world)[worker.rank]:
            batch = worker.batch(units)
            nll = worker.engine(batch=batch, summed=False)
            if batch.rows:
                pairs = torch.tensor(units)
                values.view(-1, 2)[pairs] = row_logps(nll, batch).double().cpu().view(-1, 2)
    worker.engine.train()
    values = values.to(worker.device)
    dist.all_reduce(values)  # every row was computed by one worker, and is zero elsewhere
    return values.cpu().numpy()
