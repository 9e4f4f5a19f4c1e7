"""Candidates: every saved step of a fit as a Hugging Face folder, until the selection has committed one of them.

The driver's side, without PyTorch; workers write them (candidate_export.py).
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from fsspec.core import url_to_fs

MARKER = "candidate.json"  # written last: a folder without it is no candidate


@dataclass(frozen=True)
class Candidate:
    """One exported step: its number, epochs and tokens seen, training loss, and where its files lie."""

    step: int
    epoch: float
    tokens: int
    loss: float
    path: str


def folder_of(work_dir: str, step: int) -> str:
    return f"{work_dir}/candidates/step-{step:06d}"


def list_candidates(work_dir: str) -> list[Candidate]:
    """All complete candidates, by step."""
    filesystem, root = url_to_fs(f"{work_dir}/candidates")
    if not filesystem.exists(root):
        return []
    found = []
    for folder in filesystem.ls(root, detail=False):
        marker = f"{folder}/{MARKER}"
        if not folder.endswith(".partial") and filesystem.exists(marker):
            found.append(Candidate(**json.loads(filesystem.cat_file(marker))))
    return sorted(found, key=lambda candidate: candidate.step)


def place(candidate: Candidate, destination: str) -> None:
    """Make a candidate the checkpoint: moved on a disk, copied on an object store (marker last)."""
    if "://" not in destination:
        Path(destination).parent.mkdir(parents=True, exist_ok=True)
        move_into_place(Path(candidate.path), Path(destination))
        return
    filesystem, source = url_to_fs(candidate.path)
    _, target = url_to_fs(destination)
    for name in sorted(filesystem.find(source), key=lambda name: name.endswith(MARKER)):
        filesystem.copy(name, target + name.removeprefix(source))


def move_into_place(temporary: Path, final: Path) -> None:
    """Give a verified folder its final name. An older folder of that name is set aside first, then removed."""
    _sync(temporary)
    aside = final.with_name(final.name + ".old")
    shutil.rmtree(aside, ignore_errors=True)
    if final.exists():
        os.replace(final, aside)
    os.replace(temporary, final)
    shutil.rmtree(aside, ignore_errors=True)


def _sync(folder: Path) -> None:
    for path in [*folder.rglob("*"), folder]:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
