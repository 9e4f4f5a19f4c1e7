"""Where a run folder may lie. Pure but for looking a protocol up."""

from __future__ import annotations

from pathlib import Path

from fsspec.implementations.local import LocalFileSystem

from ray_app.errors import InputError, first_line
from ray_app.run import storage

PACKAGE_FOLDER = "working_dir_files"  # of Ray's runtime environments: where it unpacks `--working-dir`


def resolved_runs(runs: str, cwd: Path, iterations: int) -> str:
    """`runs` as every process of the run means it: an absolute path, or a URI. `cwd`: where the user started.

    Raises InputError for a place where the run would be lost, or could not be finished.
    """
    protocol = runs.split("://", 1)[0] if "://" in runs else ""
    if protocol not in ("", "file", "local"):
        return _remote(runs, iterations)
    path = Path(LocalFileSystem._strip_protocol(runs) if protocol else runs).expanduser()
    require_kept("runs", path, cwd)
    return str(cwd / path)


def require_kept(setting: str, path: str | Path, cwd: Path) -> None:
    """Raises InputError where a relative path means Ray's unpacked copy of the working dir, which goes with the job."""
    if "://" not in str(path) and not Path(path).expanduser().is_absolute() and PACKAGE_FOLDER in cwd.parts:
        raise InputError(
            f"{setting}: {path} is a relative path, and would be lost with Ray's unpacked copy of the working dir: "
            "give an absolute path on a disk that every node sees"
        )


def _remote(runs: str, iterations: int) -> str:
    if iterations:
        raise InputError(
            f"runs: {runs} is no folder: engines and trainers read checkpoints as files, so iterations > 0 need a path "
            "on a disk that every node sees"
        )
    try:
        storage.filesystem(runs)
    except (ImportError, ValueError) as fault:
        raise InputError(f"runs: {runs} cannot be used: {first_line(fault)}") from fault
    return runs
