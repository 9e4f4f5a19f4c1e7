"""Stage records for the tests of this folder."""

from __future__ import annotations

from typing import Any

from ray_app.run.fingerprint import Fingerprint, fingerprint
from ray_app.run.folder import StageRecord


def print_of(stage: str, settings: dict[str, Any] | None = None, upstream: tuple[str, ...] = ()) -> Fingerprint:
    return fingerprint(stage, settings or {}, {}, upstream)


def record_of(printed: Fingerprint, iteration: int | None = None, **values: Any) -> StageRecord:
    base: dict[str, Any] = {
        "rows_in": 10,
        "rows_out": 9,
        "quarantined": {"empty": 1},
        "prompt_tokens": 100,
        "completion_tokens": 50,
        "seconds": 1.5,
        "finished": "2026-01-01T00:00:00+00:00",
    }
    return StageRecord(stage=printed.stage, iteration=iteration, fingerprint=printed, **{**base, **values})
