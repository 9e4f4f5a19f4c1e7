"""What every stage of the loop is given: the settings, the run folder, and the runner."""

from __future__ import annotations

from dataclasses import dataclass

import ray.data

from ray_app.config import IterateSettings
from ray_app.run.folder import RunFolder
from ray_app.runner import Runner


@dataclass(frozen=True)
class Context:
    """One run, while it runs."""

    settings: IterateSettings
    folder: RunFolder
    runner: Runner

    def pairs_dir(self, iteration: int | None) -> str:
        """The pairs that `iteration` uses: made once, or its own."""
        own = self.settings.pairs.refresh == "each_iteration"
        return self.folder.stage_dir("pairs", iteration if own else None)

    def dataset(self, directory: str) -> ray.data.Dataset:
        return self.runner.dataset(directory)
