"""Settings of the run folder (`shards.…`)."""

from __future__ import annotations

from pydantic import Field

from ray_app.base.settings_parts import Part

MAX_ROWS, MAX_SECONDS = 256, 30.0


class ShardSettings(Part):
    """When a shard of generated rows is closed. What is in no closed shard is asked for again after a crash."""

    max_rows: int = Field(MAX_ROWS, ge=1, description="rows of a shard")
    max_seconds: float = Field(MAX_SECONDS, gt=0, description="age of an open shard")
