"""Model folders on an object store, as libraries can read them: copied to this node's disk, once a node.

Copies lie in Python's folder for temporary files (`TMPDIR` names another) and are shared by all processes of a node:
engines, training workers, tasks. A process holds the copies that it uses by a lock, which the kernel frees when the
process ends; copies that nobody holds are removed before the next one is fetched, so a node keeps about one model.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import tempfile
import threading
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ray_app.base.stores import filesystem, is_remote
from ray_app.errors import InputError

WEIGHTS = (".safetensors", ".bin", ".gguf")
OTHERS = (".json", ".jinja", ".model", ".txt", ".py")
OURS = ("judge.json", "candidate.json", "training.json")  # beside a checkpoint: no model library reads them
_held: dict[bool, tuple[Path, int]] = {}  # {with weights: (copy, its lock)}: what this process uses
_one_at_a_time = threading.Lock()


def local_model(model: str, weights: bool = True) -> str:
    """A model as libraries can read it: a hub id or a path as it is; of a folder on an object store a copy on this
    node's disk, which is fetched where it is not there. Without `weights`: config and tokenizer alone.

    The copy stays until this process asks for another model, or ends. Raises InputError where the folder holds no
    model or the disk has too little room; OSError, or the store's own fault, where it cannot be fetched.
    """
    if not is_remote(model):
        return model
    files = model_files_of(model, weights)
    root = Path(tempfile.gettempdir(), f"ste-models-{os.getuid()}")
    root.mkdir(mode=0o700, exist_ok=True)
    copy = root / _key(files, weights)
    with _one_at_a_time:
        if weights not in _held or _held[weights][0] != copy:
            _release(weights)
            _held[weights] = (copy, _fetched(model, files, copy))
    return str(copy)


def model_files_of(model: str, weights: bool = True) -> dict[str, dict[str, Any]]:
    """{name: what the store says of it} of the model's files in a folder on a store. Raises InputError where there is
    no config.json among them.
    """
    fs, path = filesystem(model)
    found = {entry["name"].rsplit("/", 1)[-1]: entry for entry in _listed(fs, path) if entry["type"] == "file"}
    suffixes = (*OTHERS, *WEIGHTS) if weights else OTHERS
    if "config.json" not in found:
        raise InputError(f"{model} holds no config.json, so it is no Hugging Face model")
    return {name: found[name] for name in sorted(found) if name.endswith(suffixes) and name not in OURS}


def _listed(fs: Any, path: str) -> list[dict[str, Any]]:
    try:
        return list(fs.ls(path, detail=True))
    except FileNotFoundError:
        return []


def _key(files: Mapping[str, Mapping[str, Any]], weights: bool) -> str:
    """Names a copy by its content, so that a checkpoint that was copied within the store is not fetched again. Of a
    store without ETags by all that it says of the files.
    """
    digest = hashlib.sha256(repr(weights).encode())
    for name, about in files.items():
        mark = about.get("ETag") or about.get("etag") or repr(sorted(about.items()))
        digest.update(f"{name}\0{about.get('size')}\0{mark}\n".encode())
    return digest.hexdigest()[:16]


def _release(weights: bool) -> None:
    if weights in _held:
        os.close(_held.pop(weights)[1])


def _fetched(model: str, files: Mapping[str, Mapping[str, Any]], copy: Path) -> int:
    """The lock under which `copy` is there. Of several processes that want it, one fetches."""
    lock = os.open(copy.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        while True:
            fcntl.flock(lock, fcntl.LOCK_SH)
            if copy.is_dir():
                return lock
            fcntl.flock(lock, fcntl.LOCK_UN)
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not copy.is_dir():
                _fetch(model, files, copy)
            fcntl.flock(lock, fcntl.LOCK_UN)  # a lock is not lowered in one go: it may be removed in between
    except BaseException:
        os.close(lock)
        raise


def _fetch(model: str, files: Mapping[str, Mapping[str, Any]], copy: Path) -> None:
    remove_unused(copy.parent, but=copy)
    size = sum(int(about["size"]) for about in files.values())
    free = shutil.disk_usage(copy.parent).free
    if free < size:
        raise InputError(
            f"{model} has {size / 2**30:.1f} GiB, and {copy.parent} of this node has {free / 2**30:.1f} GiB free: let "
            "TMPDIR name a larger disk"
        )
    fs, _ = filesystem(model)
    partial = copy.with_name(f"{copy.name}.partial-{uuid.uuid4().hex}")
    partial.mkdir()
    try:
        fs.get([about["name"] for about in files.values()], [str(partial / name) for name in files])
        for name, about in files.items():
            if (partial / name).stat().st_size != about["size"]:
                raise OSError(f"{model}/{name} did not come whole")
        os.replace(partial, copy)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def remove_unused(root: Path, but: Path) -> None:
    """Remove the copies in `root` that no process holds, and what killed ones have left unfinished."""
    for lock_file in root.glob("*.lock"):
        copy = lock_file.with_suffix("")
        lock = os.open(lock_file, os.O_RDWR)
        try:
            if copy != but:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for left in [copy, *root.glob(f"{copy.name}.partial-*")]:
                shutil.rmtree(left, ignore_errors=True)
        except BlockingIOError:
            continue
        finally:
            os.close(lock)
