"""Training state on shared storage: DeepSpeed's shards and our progress, for resume after a worker or node died."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ray_app.base.stores import filesystem, is_remote
from ray_app.run import storage
from ray_app.train.job import RAY_RUN, Job


@dataclass
class Progress:
    """How far a fit has come; saved with every checkpoint, so that a resumed loss curve has no hole."""

    step: int = 0
    epoch: float = 0.0
    tokens: int = 0
    history: list[dict[str, float]] = field(default_factory=list)

    def dump(self) -> dict[str, Any]:
        return asdict(self)


def save(engine: Any, job: Job, progress: Progress) -> None:
    """Save the sharded state of all ranks and tell Ray Train. Every rank must call this."""
    import ray.train
    from ray.train import CheckpointUploadMode

    name = f"state-{progress.step:06d}"
    client = {"progress": progress.dump()}
    options = {
        "tag": name,
        "client_state": client,
        "exclude_frozen_parameters": job.settings.lora is not None,
    }
    if is_remote(job.work_dir):
        with tempfile.TemporaryDirectory() as folder:
            engine.save_checkpoint(folder, **options)
            checkpoint = ray.train.Checkpoint.from_directory(folder)
            ray.train.report({}, checkpoint=checkpoint, checkpoint_dir_name=name)
        return
    # Shared disk: every rank writes its shards where they stay; Ray's upload would copy a terabyte once more.
    folder = f"{job.ray_dir}/{name}"
    engine.save_checkpoint(folder, **options)
    checkpoint = ray.train.Checkpoint.from_directory(folder)
    ray.train.report(
        {},
        checkpoint=checkpoint,
        checkpoint_dir_name=name,
        checkpoint_upload_mode=CheckpointUploadMode.NO_UPLOAD,
    )


def write_progress(work_dir: str, progress: Progress) -> None:
    """Rank 0: leave the progress where the driver reads it (Ray Train keeps metrics of checkpoints only)."""
    fs, root = filesystem(work_dir)
    fs.makedirs(root, exist_ok=True)
    fs.pipe_file(f"{root}/progress-{progress.step:06d}.json", json.dumps(progress.dump()).encode())


def read_progress(work_dir: str, step: int) -> Progress:
    """The progress at an exported step."""
    fs, root = filesystem(work_dir)
    return Progress(**json.loads(fs.cat_file(f"{root}/progress-{step:06d}.json")))


def write_spent(job: Job, spent: dict[str, float]) -> None:
    """Rank 0: leave what its time went into (seconds by cause) where the driver reads it."""
    fs, root = filesystem(job.work_dir)
    fs.makedirs(root, exist_ok=True)
    fs.pipe_file(f"{root}/spent.json", json.dumps({"started": job.started, "spent": spent}).encode())


def read_spent(job: Job) -> dict[str, float]:
    """What the workers of this start have left; empty where they left nothing."""
    fs, root = filesystem(job.work_dir)
    if not fs.exists(f"{root}/spent.json"):
        return {}
    told = json.loads(fs.cat_file(f"{root}/spent.json"))
    return dict(told["spent"]) if told["started"] == job.started else {}


def write_fault(work_dir: str, kind: str, message: str) -> None:
    """Note a fault that no restart can cure; the driver raises it, and restarted workers return at once."""
    fs, root = filesystem(work_dir)
    fs.makedirs(root, exist_ok=True)
    fs.pipe_file(f"{root}/fault.json", json.dumps({"kind": kind, "message": message}).encode())


def read_fault(work_dir: str) -> tuple[str, str] | None:
    """(kind, message) of such a fault."""
    fs, root = filesystem(work_dir)
    if not fs.exists(f"{root}/fault.json"):
        return None
    fault = json.loads(fs.cat_file(f"{root}/fault.json"))
    return fault["kind"], fault["message"]


def clear_fault(work_dir: str) -> None:
    """Forget the fault of an earlier call: its cause may be gone."""
    fs, root = filesystem(work_dir)
    if fs.exists(f"{root}/fault.json"):
        fs.rm(f"{root}/fault.json")


def resume(engine: Any, checkpoint: Any) -> Progress:
    """Load Ray Train's newest checkpoint, if there is one. Every rank must call this."""
    if checkpoint is None:
        return Progress()
    adapters_only = any(not parameter.requires_grad for parameter in engine.module.parameters())
    with checkpoint.as_directory() as folder:
        loaded, client = engine.load_checkpoint(folder, load_module_strict=not adapters_only)
        if loaded is None:
            raise RuntimeError(f"the checkpoint {folder} cannot be loaded")
    return Progress(**client["progress"])


def adopt(work_dir: str, ray_dir: str) -> str:
    """Make Ray Train's own folder, which was there before the fit was known, this fit's; returns its path. A link, so
    that Ray Train finds its checkpoints there again when the fit is continued. Raises FileExistsError where an earlier
    start of the fit has left one.
    """
    Path(work_dir).mkdir(parents=True, exist_ok=True)
    Path(work_dir, RAY_RUN).symlink_to(os.path.relpath(ray_dir, work_dir))
    return ray_dir


def drop(work_dir: str) -> None:
    """Remove what was needed to continue a fit."""
    link = Path(work_dir, RAY_RUN)
    if not is_remote(work_dir) and link.is_symlink():
        shutil.rmtree(link.resolve().parent, ignore_errors=True)
        link.unlink()
    storage.remove(f"{work_dir}/{RAY_RUN}")


STEPS = "steps"  # the one part of what a worker has spent that is no waiting
