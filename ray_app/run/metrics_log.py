"""metrics.jsonl: one line a committed stage. Derived from the stage.json files, so nothing is double or lost."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa

from ray_app.run import storage
from ray_app.run.folder import StageRecord, read_record

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


def rebuild(run_uri: str, directories: list[str]) -> list[dict[str, Any]]:
    """Write metrics.jsonl from the committed stages among `directories`, in their order, and return its lines."""
    records = [record for directory in directories if (record := read_record(directory))]
    lines = [line_of(record) for record in records]
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    storage.write_bytes_atomic(storage.join(run_uri, "metrics.jsonl"), text.encode())
    return lines
