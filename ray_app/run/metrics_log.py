"""metrics.jsonl: one line a committed stage. Derived from the stage.json files, so nothing is double or lost.

In the file `extra` is an object; in a table of METRICS, whose columns have one type each, it is its JSON text.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from ray_app.run import storage
from ray_app.run.folder import COMMIT, StageRecord, read_record

METRICS = pa.schema(
    [
        ("stage", pa.string()),
        ("iteration", pa.int32()),
        ("finished", pa.string()),
        ("seconds", pa.float64()),
        ("rows_in", pa.int64()),
        ("rows_out", pa.int64()),
        ("quarantined", pa.map_(pa.string(), pa.int64())),
        ("prompt_tokens", pa.int64()),
        ("completion_tokens", pa.int64()),
        ("extra", pa.string()),  # JSON: what is particular to the stage
    ]
)


def line_of(record: StageRecord) -> dict[str, Any]:
    """One line: the record without its fingerprint."""
    values = record.model_dump(mode="json", exclude={"fingerprint"})
    return {name: values[name] for name in METRICS.names}


def as_table(lines: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Lines as a table of METRICS. Raises pyarrow.ArrowException for a value of another type."""
    rows = [{**line, "extra": json.dumps(line["extra"], ensure_ascii=False)} for line in lines]
    return pa.Table.from_pylist(rows, schema=METRICS)


def rebuild(run_uri: str, directories: Sequence[str]) -> list[dict[str, Any]]:
    """Write metrics.jsonl; returns the lines of the committed stages among `directories`, in their order.

    Stages committed by a call with more iterations or benchmarks follow in the file, by their time.
    """
    asked = _lines(directories)
    others = _lines(sorted(set(_committed(run_uri)) - set(directories)))
    lines = asked + sorted(others, key=lambda line: str(line["finished"]))
    as_table(lines)
    text = "".join(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n" for line in lines)
    storage.write_bytes_atomic(storage.join(run_uri, "metrics.jsonl"), text.encode("utf-8", "replace"))
    return asked


def _lines(directories: Iterable[str]) -> list[dict[str, Any]]:
    return [line_of(record) for directory in directories if (record := read_record(directory))]


def _committed(run_uri: str) -> list[str]:
    """Folders of all commits of the run: stage, iter_NN/stage, iter_NN/stage/benchmark, and one below those of the
    seed's other prompts.
    """
    depths = ("*", "iter_*/*", "iter_*/*/*", "iter_*/*/*/*")
    return [folder for depth in depths for folder in storage.list_folders_with(run_uri, depth, COMMIT)]
