"""Candidates: every saved step of a fit as a Hugging Face folder, until the selection has committed one of them.

The driver's side, without PyTorch; workers write them (candidate_export.py).
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from ray_app.base.stores import filesystem, is_remote
from ray_app.run import storage

MARKER = "candidate.json"  # written last: a folder without it is no candidate
RECORD = "training.json"  # in the checkpoint folder: the result, and which fit it came from


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
    fs, root = filesystem(f"{work_dir}/candidates")
    if not fs.exists(root):
        return []
    found = []
    for folder in fs.ls(root, detail=False):
        marker = f"{folder}/{MARKER}"
        if not folder.endswith(".partial") and fs.exists(marker):
            found.append(Candidate(**json.loads(fs.cat_file(marker))))
    return sorted(found, key=lambda candidate: candidate.step)


def place(candidate: Candidate, destination: str) -> None:
    """Make a candidate the checkpoint: moved on a disk, copied on a store (the record, which commits it, last)."""
    if not is_remote(destination):
        Path(destination).parent.mkdir(parents=True, exist_ok=True)
        move_into_place(Path(candidate.path), Path(destination))
        return
    fs, source = filesystem(candidate.path)
    _, target = filesystem(destination)
    storage.remove(destination)  # of an earlier fit, or what a killed call has copied
    last = (MARKER, RECORD)
    for name in sorted(fs.find(source), key=lambda name: (name.endswith(last), name.endswith(RECORD))):
        fs.copy(name, target + name.removeprefix(source))


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
