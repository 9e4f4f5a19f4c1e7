"""Where a run folder may lie. Pure but for looking a protocol up."""

from __future__ import annotations

from pathlib import Path

from fsspec.implementations.local import LocalFileSystem

from ray_app.base.stores import filesystem, is_remote
from ray_app.errors import InputError, first_line

PACKAGE_FOLDER = "working_dir_files"  # of Ray's runtime environments: where it unpacks `--working-dir`


def resolved_runs(runs: str, cwd: Path) -> str:
    """`runs` as every process of the run means it: an absolute path, or a URI. `cwd`: where the user started.

    Raises InputError for a place where the run would be lost, or that cannot be reached.
    """
    if is_remote(runs):
        return _remote(runs)
    path = Path(LocalFileSystem._strip_protocol(runs) if "://" in runs else runs).expanduser()
    require_kept("runs", path, cwd)
    return str(cwd / path)


def require_kept(setting: str, path: str | Path, cwd: Path) -> None:
    """Raises InputError where a relative path means Ray's unpacked copy of the working dir, which goes with the job."""
    if "://" not in str(path) and not Path(path).expanduser().is_absolute() and PACKAGE_FOLDER in cwd.parts:
        raise InputError(
            f"{setting}: {path} is a relative path, and would be lost with Ray's unpacked copy of the working dir: "
            "give an absolute path on a disk that every node sees"
        )


def _remote(runs: str) -> str:
    """Raises InputError where there is no such store, bucket or key to it: at once, not at the first shard."""
    try:
        fs, path = filesystem(runs)
        bucket = path.split("/", 1)[0]
        if bucket and not fs.exists(bucket):
            raise InputError(f"runs: {runs} cannot be used: there is no bucket {bucket}, or no access to it")
    except InputError:
        raise
    except Exception as fault:  # each library has faults of its own for a key that is missing or wrong
        raise InputError(f"runs: {runs} cannot be used: {first_line(fault)}") from fault
    return runs
