"""Finished units, as a stage's client gives them to the shard writer."""

from __future__ import annotations

import pyarrow as pa

from ray_app.engine.base import UnitResult

SCHEMA = pa.schema([("id", pa.string()), ("value", pa.int32())])


def result(name: str, rows: int = 1) -> UnitResult:
    counters = {"completion_tokens": 10.0, "samples": 1.0}
    return UnitResult(name, rows=[{"id": name, "value": i} for i in range(rows)], counters=counters)


def quarantined(name: str, reason: str = "empty") -> UnitResult:
    return UnitResult(name, quarantine=[{"id": name, "stage": "pairs", "reason": reason, "detail": ""}])
