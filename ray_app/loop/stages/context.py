"""What every stage of the loop is given: the settings, the run folder, the runner, and what was read from outside."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import pyarrow as pa
import ray.data

from ray_app.generation.runner import Runner, StageResult
from ray_app.loop.config import IterateSettings
from ray_app.loop.stages.inputs import Inputs
from ray_app.run.folder import DPO, RunFolder
from ray_app.run.shards import ShardWriter
from ray_app.train.standby import Standby

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Context:
    """One run, while it runs."""

    settings: IterateSettings
    folder: RunFolder
    runner: Runner
    inputs: Inputs
    written: dict[str, float] = field(default_factory=dict)  # when this process wrote which checkpoint (Unix time)
    standbys: dict[str, Standby] = field(default_factory=dict)  # training workers that wait, by the state they are for

    def dpo(self) -> Context:
        """The same run as the stages of the second training see it."""
        return replace(self, settings=self.settings.dpo_phase, folder=self.folder.of_phase(DPO))

    def pairs_dir(self, iteration: int | None) -> str:
        """The pairs that `iteration` uses: made once, or its own."""
        own = self.settings.pairs.refresh == "each_iteration"
        return self.folder.of_phase("").stage_dir("pairs", iteration if own else None)

    def since_checkpoint(self, model: str, result: StageResult) -> dict[str, float]:
        """Seconds from a checkpoint's last file to the first answer of engines that loaded it for this stage. Empty
        where it was loaded before, or written by an earlier process: that a run stood still is no time to load.
        """
        written, answered = self.written.get(model), result.extra.get("first_answer")
        if written is None or answered is None:
            return {}
        seconds = round(answered - written, 3)
        log.info("%s: first answer %.1f s after its checkpoint, engines %s", model, seconds, result.extra["weights"])
        return {"checkpoint_to_first_answer_s": seconds}

    @contextlib.contextmanager
    def standby(self, state: str) -> Iterator[Standby | None]:
        """The training workers that wait for this training, if any do; they end with the block."""
        waiting = self.standbys.pop(state, None)
        try:
            yield waiting
        finally:
            if waiting:
                waiting.close()

    def dataset(self, directory: str) -> ray.data.Dataset:
        return self.runner.dataset(directory)

    def clear(self, directory: str) -> None:
        """Remove what an interrupted attempt left of a stage that starts from nothing. Raises RunError where another
        driver holds the run: it is no longer this one's to clear.
        """
        self.check_lease()
        self.folder.clear(directory)

    def writer(self, directory: str, schema: pa.Schema) -> ShardWriter:
        """Writes the table of a stage that asks no engine. Its files hold their rows alone, not who wrote them: two
        runs that choose the same training set have the same files.
        """
        return ShardWriter(directory, schema, fence=self.check_lease)

    def check_lease(self) -> None:
        if self.runner.fence is not None:
            self.runner.fence.check()
