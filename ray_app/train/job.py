"""What a training worker is told: one picklable description of the fit."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ray_app.base.model_files import model_identity
from ray_app.base.schema import canonical
from ray_app.train.batches import PlanSettings
from ray_app.train.settings import TrainSettings

RAY_RUN = "ray"  # the name of every run of Ray Train, and of its own folder in `work_dir`


def unfenced() -> None:
    """Nobody else can have taken over what a fit writes."""


@dataclass(frozen=True)
class Job:
    """One fit, as every worker sees it."""

    settings: TrainSettings
    seed_model: str
    name: str
    seed: int
    rows: Sequence[Any]  # Ray object refs of encoded tables, in order
    work_dir: str  # shared storage: DeepSpeed state, candidates, curves
    total_steps: int
    stop_at: int  # this segment ends after so many steps (selection between segments)
    shape: dict[str, Any] | None = None  # random weights of this config instead of the seed model (benchmarks)
    candidates: bool = False  # export at every checkpoint, not only at the end
    export: bool = True
    revision: str | None = None  # of a seed model from the hub
    started: float = 0.0  # when the workers were asked for (Unix time)
    adopted: str = ""  # Ray Train's own folder, where it was there before the fit was known
    fence: Callable[[], None] = unfenced  # raises once `work_dir` is another driver's

    @property
    def ray_dir(self) -> str:
        """Ray Train's own folder: what it saves must lie there."""
        return self.adopted or f"{self.work_dir}/{RAY_RUN}"


def fit_id(
    settings: TrainSettings,
    seed_model: str,
    files: Sequence[str],
    seed: int,
    template: dict[str, Any],
    revision: str | None = None,
    origin: str = "",
) -> str:
    """Names what a fit computes: state of another fit is never resumed. `files` are content hashes, in order. `origin`
    names the training that made the model it begins with: checkpoints of one shape have one identity.
    """
    computed = settings.covered(
        {"tracking", "selection", "max_failures", "timeout_s", "log_every", "cpus_per_worker", "keep_candidates"}
    )
    what = [computed, model_identity(seed_model), revision, list(files), seed, template, *([origin] if origin else [])]
    return hashlib.sha256(canonical(what).encode()).hexdigest()[:16]


def plan_settings(settings: TrainSettings, seed: int) -> PlanSettings:
    """What the plan of batches depends on."""
    return PlanSettings(
        workers=settings.workers,
        tokens_per_batch=settings.tokens_per_batch,
        accumulation=settings.accumulation,
        batch_rows=settings.batch_rows,
        batching=settings.batching,
        seed=seed,
    )


def rows_of(units: Sequence[int], unit_rows: int) -> list[int]:
    """Row numbers of units."""
    return [unit * unit_rows + side for unit in units for side in range(unit_rows)]
