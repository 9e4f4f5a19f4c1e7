"""Settings of the run folder (`shards.…`)."""

from __future__ import annotations

from pydantic import Field

from ray_app.run.shards import MAX_ROWS, MAX_SECONDS
from ray_app.settings_parts import Part


class ShardSettings(Part):
    """When a shard of generated rows is closed. What is in no closed shard is asked for again after a crash."""

    max_rows: int = Field(MAX_ROWS, ge=1)
    max_seconds: float = Field(MAX_SECONDS, gt=0)
