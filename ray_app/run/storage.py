"""Files of a run, on a local path or any fsspec URI. Every write appears whole or not at all.

Local: a temporary file in the same folder, fsync, rename. Object stores: one put, which is atomic there.
"""

from __future__ import annotations

import contextlib
import fnmatch
import hashlib
import io
import json
import os
import uuid
from collections.abc import Iterator, Sequence
from typing import IO, Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem

from ray_app.errors import InputError

TEMPORARY = ".tmp-"


def filesystem(uri: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """(filesystem, path inside it) of a local path or URI."""
    fs, path = fsspec.core.url_to_fs(uri)
    return fs, path


def is_local(uri: str) -> bool:
    return isinstance(filesystem(uri)[0], LocalFileSystem)


def join(*parts: str) -> str:
    return "/".join(part.rstrip("/") if i < len(parts) - 1 else part for i, part in enumerate(parts))


def exists(uri: str) -> bool:
    fs, path = filesystem(uri)
    return bool(fs.exists(path))


def remove(uri: str) -> None:
    """Remove a file or a folder with all it holds; nothing there is no error."""
    fs, path = filesystem(uri)
    if fs.exists(path):
        fs.rm(path, recursive=True)


def list_files(directory: str, pattern: str = "*") -> list[str]:
    """Full URIs of the files directly in `directory` that match, sorted; temporary files are never listed."""
    fs, path = filesystem(directory)
    fs.invalidate_cache()
    if not fs.isdir(path):
        return []
    names = sorted(entry.rstrip("/").rsplit("/", 1)[-1] for entry in fs.ls(path, detail=False))
    return [join(directory, n) for n in names if fnmatch.fnmatch(n, pattern) and not n.startswith(TEMPORARY)]


def write_bytes_atomic(uri: str, data: bytes) -> None:
    """Write one file whole or not at all, with its folder."""
    fs, path = filesystem(uri)
    if not isinstance(fs, LocalFileSystem):
        fs.makedirs(fs._parent(path), exist_ok=True)
        fs.pipe_file(path, data)
        return
    folder, name = os.path.split(path)
    os.makedirs(folder or ".", exist_ok=True)
    temporary = os.path.join(folder, f"{TEMPORARY}{name}-{uuid.uuid4().hex}")
    with open(temporary, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


@contextlib.contextmanager
def open_atomic(uri: str) -> Iterator[IO[str]]:
    """A text file that appears when the block ends without an error."""
    buffer = io.StringIO()
    yield buffer
    write_bytes_atomic(uri, buffer.getvalue().encode("utf-8"))


def read_json(uri: str) -> Any:
    fs, path = filesystem(uri)
    return json.loads(fs.cat_file(path))


def write_json_atomic(uri: str, value: Any) -> None:
    text = json.dumps(value, ensure_ascii=False, indent=2, sort_keys=False, allow_nan=False)
    write_bytes_atomic(uri, text.encode("utf-8") + b"\n")


def write_parquet_atomic(table: pa.Table, uri: str) -> None:
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    write_bytes_atomic(uri, sink.getvalue())


def read_parquet(uri: str, columns: Sequence[str] | None = None) -> pa.Table:
    """A shard as a table. Raises InputError naming the file when it is no whole Parquet file."""
    fs, path = filesystem(uri)
    try:
        with fs.open(path, "rb") as file:
            return pq.read_table(file, columns=list(columns) if columns else None)
    except (pa.ArrowInvalid, OSError) as fault:
        raise InputError(f"{uri} is not a whole Parquet file: {str(fault).splitlines()[0]}") from fault


def content_hash(uri: str) -> str:
    """SHA-256 of a file, or of every file of a folder by name. Raises InputError when nothing is there."""
    fs, path = filesystem(uri)
    if not fs.exists(path):
        raise InputError(f"{uri} does not exist")
    digest = hashlib.sha256()
    for file in sorted(fs.find(path)) if fs.isdir(path) else [path]:
        if fs.isdir(path):
            digest.update(file.removeprefix(path).encode())
        with fs.open(file, "rb") as handle:
            while block := handle.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()[:32]
