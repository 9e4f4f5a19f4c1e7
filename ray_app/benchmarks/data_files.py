"""Which files a path names, and by their suffix how they are read."""

from __future__ import annotations

from pathlib import PurePosixPath

import fsspec

from ray_app.errors import InputError, first_line

COMPRESSED = (".gz", ".bz2", ".xz", ".zst")
LINES, ARRAY, PARQUET = (".jsonl", ".ndjson"), (".json",), (".parquet", ".pq")
SUFFIXES = LINES + ARRAY + PARQUET
DESCRIPTIONS = ("dataset_infos.json", "dataset_info.json", "dataset_dict.json", "state.json")  # of `datasets`


def list_files(path: str) -> list[str]:
    """The readable files behind `path`, sorted. Raises InputError when there is none."""
    try:
        fs, inner = fsspec.core.url_to_fs(path)
        if not fs.exists(inner):
            raise InputError(f"{path} does not exist")
        if not fs.isdir(inner):
            format_of(path)
            return [path]
        found = [file for file in sorted(fs.find(inner)) if has_suffix(file) and not beside(file.removeprefix(inner))]
        files = [fs.unstrip_protocol(file) if "://" in path else file for file in found]
    except (ValueError, ImportError, OSError) as fault:
        raise InputError(f"{path} cannot be read: {first_line(fault)}") from fault
    if not files:
        raise InputError(f"folder {path} holds no {', '.join(SUFFIXES)} file")
    return files


def beside(path: str) -> bool:
    """Whether a file of a folder is about the data, and none of it: hidden, or a dataset's own description."""
    parts = PurePosixPath(path).parts
    return any(part.startswith((".", "_")) for part in parts) or parts[-1] in DESCRIPTIONS


def has_suffix(path: str) -> bool:
    """Whether `path` is named like a file this reader reads."""
    return bare(path).endswith(SUFFIXES)


def format_of(file: str) -> str:
    """jsonl, json or parquet. Raises InputError for any other suffix."""
    name = bare(file)
    for kind, suffixes in (("jsonl", LINES), ("json", ARRAY), ("parquet", PARQUET)):
        if name.endswith(suffixes):
            return kind
    raise InputError(f"{file} is none of {', '.join(SUFFIXES)}")


def bare(file: str) -> str:
    """The name in lower case, without the suffix of its compression."""
    lower = file.lower()
    return next((lower.removesuffix(suffix) for suffix in COMPRESSED if lower.endswith(suffix)), lower)
