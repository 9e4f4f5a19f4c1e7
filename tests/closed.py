"""The units of a stage's closed shards, by name."""

from __future__ import annotations

from collections.abc import Sequence

from ray_app.run.shards import closed_names


def closed_units(
    directory: str, key: Sequence[str], where: tuple[str, str] | None = None, stage: str | None = None
) -> set[str]:
    """What a resumed stage does not ask for again."""
    return {name for names in closed_names(directory, key, where, stage) for name in names.to_pylist()}
