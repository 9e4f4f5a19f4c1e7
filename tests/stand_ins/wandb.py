"""Stands for Weights & Biases where a test puts this folder on PYTHONPATH: a training that waits where it is told to.

The project is a folder. Before the point of step N is taken, rank 0 waits for as long as `hold-N` lies in it.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any


class Run:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def log(self, _: dict[str, float], step: int) -> None:
        while (self.folder / f"hold-{step}").exists():
            time.sleep(0.05)

    def finish(self) -> None:
        return None


def init(project: str, **_: Any) -> Run:
    return Run(Path(project))
