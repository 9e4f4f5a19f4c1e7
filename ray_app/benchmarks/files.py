"""One reader for users' files: JSONL, JSON and Parquet, local or any fsspec URI, plain or compressed.

    for row in read_rows("pairs.jsonl", required={"id": (str, int), "instruction": (str, list)}): ...

Faults of a *file* (missing, missing column, wrong type, broken JSON, invalid UTF-8, no rows) raise
InputError, one line that names the file, the line and the column. Faults of a *row* are for the caller: a
null or NaN value is read as None. Rows are streamed; only a `.json` array is held in memory. Texts lose
control characters and lone surrogates, which no tokenizer and no Arrow column takes.
"""

from __future__ import annotations

import contextlib
import io
import json
import lzma
import math
import re
import zlib
from collections.abc import Iterator, Mapping
from typing import IO, Any, NamedTuple

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from ray_app.base.json_value import parse_json
from ray_app.benchmarks.data_files import COMPRESSED, format_of, list_files
from ray_app.errors import InputError, first_line

Types = type | tuple[type, ...]  # `object` stands for any type

_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_SURROGATE = re.compile("[\ud800-\udfff]")
_PARQUET_BATCH = 256


class Numbered(NamedTuple):
    """A raw row and where it stands, for error messages."""

    file: str
    unit: str
    number: int
    row: dict[str, Any]

    @property
    def where(self) -> str:
        return f"{self.file} {self.unit} {self.number}"


def read_rows(
    path: str, required: Mapping[str, Types], optional: Mapping[str, Types] | None = None
) -> Iterator[dict[str, Any]]:
    """Rows of a file, or of the files of a folder in name order, as dicts; see `read_numbered`."""
    return (numbered.row for numbered in read_numbered(path, required, optional))


def read_numbered(
    path: str, required: Mapping[str, Types], optional: Mapping[str, Types] | None = None
) -> Iterator[Numbered]:
    """Rows with their line (JSONL, JSON: array element) or row (Parquet) number, counted from 1.

    `required` columns must be there with these types (or null); `optional` ones are type-checked where they
    are. With `optional=None` every other column passes through unchecked, otherwise other columns are left
    out. Raises InputError: at once where nothing can be read, else when the faulty line is reached.
    """
    files = list_files(path)
    return _read_files(path, files, required, optional)


def columns_of(path: str) -> set[str]:
    """Column names of the first row. Raises InputError as `read_numbered` does."""
    return set(next(read_numbered(path, {})).row)


def clean_text(text: str) -> str:
    """`text` without control characters (tab and newlines stay) and with lone surrogates as U+FFFD."""
    if _CONTROL.search(text):
        text = _CONTROL.sub("", text)
    if _SURROGATE.search(text):
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def _read_files(
    path: str, files: list[str], required: Mapping[str, Types], optional: Mapping[str, Types] | None
) -> Iterator[Numbered]:
    empty = True
    for file in files:
        for numbered in _read_file(file, required, optional):
            empty = False
            row = clean_row(numbered.row)
            check_row(numbered.where, row, required, optional)
            if optional is not None:
                row = {name: value for name, value in row.items() if name in required or name in optional}
            yield numbered._replace(row=row)
    if empty:
        raise InputError(f"{path} holds no rows")


def _read_file(file: str, required: Mapping[str, Types], optional: Mapping[str, Types] | None) -> Iterator[Numbered]:
    try:
        with _opened(file) as stream:
            if format_of(file) == "parquet":
                yield from _read_parquet(file, stream, required, optional)
            else:
                yield from _read_json(file, stream)
    except (OSError, EOFError, pa.ArrowException, zlib.error, lzma.LZMAError) as fault:
        raise InputError(f"{file} cannot be read: {first_line(fault)}") from fault


@contextlib.contextmanager
def _opened(file: str) -> Iterator[IO[bytes]]:
    """The file's bytes, decompressed. For `.zst` fsspec needs a package that is not among ours; Arrow needs none."""
    compressed = file.lower().endswith(COMPRESSED)
    zstd = file.lower().endswith(".zst")
    with fsspec.open(file, "rb", compression="infer" if compressed and not zstd else None) as stream:
        yield io.BufferedReader(pa.CompressedInputStream(stream, "zstd")) if zstd else stream


def _read_json(file: str, stream: IO[bytes]) -> Iterator[Numbered]:
    may_be_array = format_of(file) == "json"
    for number, line in enumerate(stream, 1):
        if number == 1:
            line = line.removeprefix(b"\xef\xbb\xbf")
        if not line.strip():
            continue
        if may_be_array and line.lstrip().startswith(b"["):
            yield from _read_array(file, line + b"".join(stream), number)
            return
        may_be_array = False
        row = _decode(file, line, number)
        if not isinstance(row, dict):
            raise InputError(f"{file} line {number} is not a JSON object")
        yield Numbered(file, "line", number, row)


def _read_array(file: str, data: bytes, begin: int) -> Iterator[Numbered]:
    elements = _decode(file, data, begin)
    for number, element in enumerate(elements, 1):
        if not isinstance(element, dict):
            raise InputError(f"{file} element {number} is not a JSON object")
        yield Numbered(file, "element", number, element)


def _decode(file: str, data: bytes, begin: int) -> Any:
    """The JSON value of `data`, which starts at line `begin` of the file: faults name the file's own lines."""
    data = data.rstrip()  # a value cut off at the end of its line would be reported on the next
    try:
        return parse_json(data)
    except UnicodeDecodeError as fault:
        line = begin + data.count(b"\n", 0, fault.start)
        byte = fault.start - data.rfind(b"\n", 0, fault.start)
        raise InputError(f"{file} line {line} is not UTF-8 (byte {byte})") from fault
    except json.JSONDecodeError as fault:
        place = f"line {begin + fault.lineno - 1} column {fault.colno}"
        raise InputError(f"{file} {place} is not JSON: {fault.msg}") from fault
    except ValueError as fault:
        raise InputError(f"{file} line {begin} is not JSON: {first_line(fault)}") from fault


def _read_parquet(
    file: str, stream: IO[bytes], required: Mapping[str, Types], optional: Mapping[str, Types] | None
) -> Iterator[Numbered]:
    parquet = pq.ParquetFile(stream)
    schema = parquet.schema_arrow
    for name, types in {**(optional or {}), **required}.items():
        if name in schema.names and not _arrow_matches(schema.field(name).type, types):
            found = schema.field(name).type
            raise InputError(f"{file} column {name!r} holds {found}, not {_names(types)}")
    for name in required:
        if name not in schema.names:
            raise InputError(f"{file} has no column {name!r}; it has {', '.join(schema.names) or 'none'}")
    wanted = None if optional is None else [n for n in schema.names if n in required or n in optional]
    number = 0
    for batch in parquet.iter_batches(batch_size=_PARQUET_BATCH, columns=wanted):
        columns = {name: _values(file, name, number, batch.column(name)) for name in batch.schema.names}
        for index in range(batch.num_rows):
            number += 1
            yield Numbered(file, "row", number, {name: values[index] for name, values in columns.items()})


def _values(file: str, name: str, before: int, column: pa.Array[Any]) -> list[Any]:
    rows = f"rows {before + 1} to {before + len(column)}"
    try:
        values: list[Any] = column.to_pylist()
        return values
    except UnicodeDecodeError as fault:
        raise InputError(f"{file} {rows} column {name!r} is not UTF-8") from fault
    except (ValueError, OverflowError) as fault:  # a time that Python's own types do not hold
        raise InputError(f"{file} {rows} column {name!r} cannot be read: {first_line(fault)}") from fault


def clean_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """`row` with every text cleaned, also in lists and objects, NaN as None, and what JSON lacks (times) as text."""
    return {name: _clean(value) for name, value in row.items()}


def check_row(
    where: str, row: dict[str, Any], required: Mapping[str, Types], optional: Mapping[str, Types] | None
) -> None:
    """Raise InputError naming `where` and the column that is missing or has another type."""
    for name in required:
        if name not in row:
            raise InputError(f"{where} has no column {name!r}; it has {', '.join(row) or 'none'}")
    for name, types in {**(optional or {}), **required}.items():
        value = row.get(name)
        if value is not None and not _matches(value, types):
            raise InputError(f"{where} column {name!r} holds {type(value).__name__}, not {_names(types)}")


def _matches(value: Any, types: Types) -> bool:
    allowed = types if isinstance(types, tuple) else (types,)
    if isinstance(value, bool):  # bool is an int to Python, never to a file
        return bool in allowed or object in allowed
    return isinstance(value, allowed) or (float in allowed and isinstance(value, int))


def _arrow_matches(kind: pa.DataType, types: Types) -> bool:
    allowed = types if isinstance(types, tuple) else (types,)
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    if is_list and _is_text(allowed):
        return _arrow_matches(kind.value_type, (str, dict))
    checks: dict[type, bool] = {
        str: pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind),
        int: pa.types.is_integer(kind),
        float: pa.types.is_floating(kind) or pa.types.is_integer(kind),
        bool: pa.types.is_boolean(kind),
        list: is_list,
        dict: pa.types.is_struct(kind) or pa.types.is_map(kind),
        object: True,
    }
    return pa.types.is_null(kind) or any(checks.get(t, False) for t in allowed)


def _is_text(allowed: tuple[type, ...]) -> bool:
    """Whether a list in this column is one of messages: a text is a string or a conversation."""
    return str in allowed and list in allowed


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return clean_text(value)
    if isinstance(value, float) and math.isnan(value):
        return None
    if isinstance(value, list):
        return [_clean(element) for element in value]
    if isinstance(value, dict):
        return {name: _clean(element) for name, element in value.items()}
    return value if value is None or isinstance(value, (bool, int, float)) else str(value)


def _names(types: Types) -> str:
    allowed = types if isinstance(types, tuple) else (types,)
    words = {str: "text", int: "a whole number", float: "a number", list: "a list", dict: "an object"}
    if _is_text(allowed):
        words[list] = "a list of messages"
    return " or ".join(words.get(t, t.__name__) for t in allowed)
