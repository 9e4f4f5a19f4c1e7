"""Rows, settings and helpers of the real training runs of this folder."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

SEED = 5
FACTS = [("seven", "three"), ("nine", "two"), ("eight", "one"), ("six", "four"), ("ten", "five"), ("five", "zero")]


def judged(index: int) -> dict[str, Any]:
    """A judge's prompt of about 70 tokens with its correct and its wrong judgment."""
    more, less = FACTS[index % len(FACTS)]
    letter = "AB"[index % 2]
    shown = (more, less) if letter == "A" else (less, more)
    question = (
        f"Which is the larger number? Response A: {shown[0]}. Response B: {shown[1]}. Compare, then give a verdict."
    )
    wrong = "BA"[index % 2]
    verdict = {side: f"The larger number is {more if side == letter else less}. [[{side}]]" for side in "AB"}
    return {
        "pair_id": f"pair-{index:02d}",
        "order": "chosen_first",
        "sample": 0,
        "iteration": 1,
        "prompt": [{"role": "user", "content": question}],
        "correct": [{"role": "assistant", "content": verdict[letter] + " Good." * (index % 3)}],
        "wrong": [{"role": "assistant", "content": verdict[wrong]}],
    }


def write_rows(factory: Any, name: str, rows: list[dict[str, Any]], schema: pa.Schema) -> str:
    path = factory.mktemp(name) / "shard-00000.parquet"
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), path)
    return str(path)


SMALL = {
    "lr": 2e-4,
    "lr_min": 2e-5,
    "warmup_steps": 1,
    "epochs": 1,
    "sequence_length": 256,
    "tokens_per_batch": 512,
    "batch_rows": 6,
    "workers": 2,
    "use_gpu": False,
    "checkpoint_every": 0,
    "recompute": "none",
}


def small(**changes: Any):
    from ray_app.train.settings import TrainSettings

    return TrainSettings(**{**SMALL, **changes})


def run(settings: Any, folder: Path, file: str, model: str, **options: Any):
    from ray_app.train.trainer import fit

    return fit(
        settings,
        seed_model=model,
        train_files=[file],
        state_dir=str(folder / "state"),
        checkpoint_dir=str(folder / "checkpoint"),
        run_name=folder.name,
        seed=SEED,
        chat_template_kwargs={},
        **options,
    )


class Killer(threading.Thread):
    """Kills one training worker with SIGKILL once Ray Train knows a first checkpoint, while training waits in a step
    behind it (`tests/stand_ins/wandb.py`).
    """

    def __init__(self, state_dir: Path, step: int) -> None:
        import ray

        super().__init__(daemon=True)
        self.state_dir, self.killed = state_dir, 0
        self.hold = state_dir / f"hold-{step}"
        state_dir.mkdir()
        self.hold.touch()
        self.address = ray.get_runtime_context().gcs_address

    def run(self) -> None:
        try:
            pid = self._until(self._worker)
            self._until(lambda: list(self.state_dir.glob("*/ray/checkpoint_manager_snapshot.json")))
            os.kill(pid, 9)
            self.killed = pid
        finally:
            self.hold.unlink()

    def _worker(self) -> int | None:
        from ray.util.state import list_actors

        filters = [("class_name", "=", "RayTrainWorker"), ("state", "=", "ALIVE")]
        pids = sorted(actor.pid for actor in list_actors(address=self.address, filters=filters))
        return pids[-1] if pids else None

    def _until(self, condition: Any) -> Any:
        deadline = time.monotonic() + 500
        while not (found := condition()):
            assert time.monotonic() < deadline, "nothing to kill"
            time.sleep(0.02)
        return found
