"""What is minimised: the SFT loss. A recipe turns a batch into a loss whose gradients sum to the step's own.

DeepSpeed averages gradients over workers. A recipe's loss is therefore scaled by the number of workers over the
whole step's target count, which every worker knows from the plan: then it does not matter how rows were packed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch

from ray_app.train.batches import Step
from ray_app.train.collate import Batch

if TYPE_CHECKING:
    from ray_app.train.worker import Worker


class Recipe(Protocol):
    """A training objective."""

    def share(self, step: Step) -> float:
        """What one target token (SFT) or pair (DPO) of this step weighs in a worker's loss."""

    def loss(self, batch: Batch, units: tuple[int, ...], share: float) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The loss to differentiate, and this batch's part of each figure (summed over batches and workers)."""


def unit_rows(recipe: str) -> int:
    """Encoded rows of one unit of the plan."""
    return 2 if recipe == "dpo" else 1


def make(worker: Worker) -> Recipe:
    return Sft(worker)


class Sft:
    """Mean negative log-likelihood of the step's completion tokens, over all workers."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        rows = worker.rows
        self.targets = rows.lengths - rows.prompts

    def share(self, step: Step) -> float:
        return self.worker.world / float(np.sum(self.targets[step.units]))

    def loss(self, batch: Batch, units: tuple[int, ...], share: float) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        nll = self.worker.engine(batch=batch, summed=True)
        loss = nll * (share if batch.rows else 0.0)
        return loss, {"loss": loss / self.worker.world}
