"""Files of a run, on a local path or any fsspec URI. Every write appears whole or not at all.

Local: a temporary file in the same folder, fsync, rename. Object stores: one put, which is atomic there.
A process that dies between the two leaves a temporary file, which nothing here ever lists.
"""

from __future__ import annotations

import contextlib
import fnmatch
import glob
import hashlib
import io
import json
import logging
import os
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import IO, Any, TypeVar

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem

from ray_app.base.stores import filesystem as filesystem
from ray_app.base.stores import is_passing
from ray_app.errors import InputError

log = logging.getLogger(__name__)
TEMPORARY = ".tmp-"
PAUSES_S = (1.0, 5.0, 15.0, 30.0)  # between the tries of a write: a disk or a store may be gone for a minute
LASTING = (FileExistsError, FileNotFoundError, NotADirectoryError, IsADirectoryError, PermissionError)
T = TypeVar("T")


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
    entries = [entry["name"] for entry in fs.ls(path, detail=True) if entry["type"] != "directory"]
    names = sorted(name.rsplit("/", 1)[-1] for name in entries)
    return [join(directory, n) for n in names if fnmatch.fnmatch(n, pattern) and not n.startswith(TEMPORARY)]


def list_folders_with(directory: str, pattern: str, name: str) -> list[str]:
    """URIs of the folders below `directory` that match `pattern` (`iter_*/*`) and hold a file `name`, sorted."""
    fs, path = filesystem(directory)
    fs.invalidate_cache()
    root = path.rstrip("/")
    found = fs.glob(f"{glob.escape(root)}/{pattern}/{name}")
    return sorted(join(directory, file.removeprefix(root).strip("/").removesuffix(f"/{name}")) for file in found)


def remove_temporaries(directory: str) -> None:
    """Remove what dead writers left of unfinished files. Only for a folder with a single writer."""
    fs, path = filesystem(directory)
    if isinstance(fs, LocalFileSystem) and os.path.isdir(path):
        for name in os.listdir(path):
            if name.startswith(TEMPORARY):
                os.unlink(os.path.join(path, name))


def retried(uri: str, act: Callable[[], T], done: str = "written") -> T:
    """What `act` returns, which is tried again where a disk or a store fails. Raises what it raises in the end, and
    at once where another try would find the same. `done`: what could not be done with the file, for the log.
    """
    for pause in PAUSES_S:
        try:
            return act()
        except LASTING:
            raise
        except Exception as fault:
            if not is_passing(fault):
                raise
            log.warning("%s could not be %s (%s): once more in %.0f s", uri, done, fault, pause)
            time.sleep(pause)
    return act()


def write_bytes_atomic(uri: str, data: bytes) -> None:
    """Write one file whole or not at all, with its folder; a write that fails is tried again."""
    retried(uri, lambda: _write(uri, data))


def _write(uri: str, data: bytes) -> None:
    fs, path = filesystem(uri)
    if not isinstance(fs, LocalFileSystem):
        fs.makedirs(fs._parent(path), exist_ok=True)
        fs.pipe_file(path, data)
        return
    with _temporary(path, data) as temporary:
        os.replace(temporary, path)


def create_bytes(uri: str, data: bytes) -> None:
    """Write one new file whole. Raises FileExistsError when it is there, on local paths and on stores with a
    conditional put (S3, GCS); on other stores the last writer wins. A write that fails otherwise is tried again.
    """
    retried(uri, lambda: _create(uri, data))


def _create(uri: str, data: bytes) -> None:
    fs, path = filesystem(uri)
    if not isinstance(fs, LocalFileSystem):
        fs.makedirs(fs._parent(path), exist_ok=True)
        fs.pipe_file(path, data, mode="create")
        return
    with _temporary(path, data) as temporary:
        os.link(temporary, path)  # as exclusive as O_EXCL, and the content is there at once


@contextlib.contextmanager
def _temporary(path: str, data: bytes) -> Iterator[str]:
    """A durable temporary file beside `path`, gone at the end unless it was renamed."""
    folder, name = os.path.split(path)
    os.makedirs(folder, exist_ok=True)
    temporary = os.path.join(folder, f"{TEMPORARY}{name}-{uuid.uuid4().hex}")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        yield temporary
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)


@contextlib.contextmanager
def open_atomic(uri: str) -> Iterator[IO[str]]:
    """A text file that appears when the block ends without an error."""
    buffer = io.StringIO()
    yield buffer
    write_bytes_atomic(uri, buffer.getvalue().encode("utf-8"))


def read_bytes(uri: str) -> bytes:
    """A file as it is. Raises FileNotFoundError where it is not there."""
    fs, path = filesystem(uri)
    return bytes(fs.cat_file(path))


def read_json(uri: str) -> Any:
    return json.loads(read_bytes(uri))


def json_bytes(value: Any) -> bytes:
    """Indented UTF-8 JSON. Raises ValueError for NaN and infinities, which are no JSON."""
    text = json.dumps(value, ensure_ascii=False, indent=2, sort_keys=False, allow_nan=False)
    return text.encode("utf-8", "replace") + b"\n"


def write_json_atomic(uri: str, value: Any) -> None:
    write_bytes_atomic(uri, json_bytes(value))


def parquet_bytes(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue()


def write_parquet_atomic(table: pa.Table, uri: str) -> None:
    write_bytes_atomic(uri, parquet_bytes(table))


def read_parquet(uri: str, columns: Sequence[str] | None = None) -> pa.Table:
    """A shard as a table, or some of its columns. Raises InputError naming the file when it is no whole Parquet
    file or lacks a column.
    """
    with _open_parquet(uri) as file:
        return pq.read_table(file, columns=None if columns is None else list(columns))


def read_metadata(uri: str) -> dict[str, str]:
    """The key-value metadata of a shard's schema. Raises InputError as `read_parquet` does."""
    with _open_parquet(uri) as file:
        found = pq.read_schema(file).metadata or {}
    return {key.decode(): value.decode() for key, value in found.items()}


def count_rows(uri: str) -> int:
    """Rows of a shard, from its footer. Raises InputError naming the file when it is no whole Parquet file."""
    with _open_parquet(uri) as file:
        return int(pq.read_metadata(file).num_rows)


@contextlib.contextmanager
def _open_parquet(uri: str) -> Iterator[IO[bytes]]:
    fs, path = filesystem(uri)
    try:
        with fs.open(path, "rb") as file:
            yield file
    except FileNotFoundError:
        raise InputError(f"{uri} does not exist") from None
    except (pa.ArrowException, OSError) as fault:
        cause = next(iter(str(fault).splitlines()), type(fault).__name__)
        raise InputError(f"{uri} is not a whole Parquet file: {cause}") from fault


def content_hash(uri: str) -> str:
    """SHA-256 of a file, or of every file of a folder by name. Raises InputError when nothing is there."""
    fs, path = filesystem(uri)
    if not fs.exists(path):
        raise InputError(f"{uri} does not exist")
    if not fs.isdir(path):
        return _file_hash(fs, path)[:32]
    digest = hashlib.sha256()
    for file in sorted(fs.find(path)):
        name = file.removeprefix(path)
        if not name.rsplit("/", 1)[-1].startswith(TEMPORARY):
            digest.update(f"{name}\0{_file_hash(fs, file)}\n".encode())
    return digest.hexdigest()[:32]


def _file_hash(fs: fsspec.AbstractFileSystem, path: str) -> str:
    digest = hashlib.sha256()
    with fs.open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
