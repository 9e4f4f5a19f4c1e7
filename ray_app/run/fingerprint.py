"""Fingerprints: what a committed stage was made with, and what no longer fits. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict

from ray_app.errors import InputError
from ray_app.schema import content_id


class Fingerprint(BaseModel):
    """Identity of a stage's work. The parts are kept, so that a mismatch can name the setting."""

    model_config = ConfigDict(frozen=True)

    stage: str
    settings: dict[str, Any]
    inputs: dict[str, str]
    upstream: tuple[str, ...]

    @property
    def digest(self) -> str:
        return content_id([self.stage, self.settings, self.inputs, list(self.upstream)])


def fingerprint(
    stage: str, settings: Mapping[str, Any], inputs: Mapping[str, str], upstream: Sequence[str]
) -> Fingerprint:
    """Settings are flattened to dotted names; inputs are content hashes; upstream are digests."""
    return Fingerprint(stage=stage, settings=flatten(settings), inputs=dict(inputs), upstream=tuple(upstream))


def flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"train": {"lr": 1}} → {"train.lr": 1}."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = list(value) if isinstance(value, tuple) else value
    return flat


def differences(old: Fingerprint, new: Fingerprint) -> list[str]:
    """What changed, in words; upstream changes last, since they follow from an earlier stage's."""
    found = []
    for name in sorted({*old.settings, *new.settings}):
        was, now = old.settings.get(name), new.settings.get(name)
        if was != now:
            found.append(f"setting {name} was {was!r}, is now {now!r}")
    for name in sorted({*old.inputs, *new.inputs}):
        if old.inputs.get(name) != new.inputs.get(name):
            found.append(
                f"the content of {name} changed"
                if name in old.inputs and name in new.inputs
                else f"input {name} {'appeared' if name in new.inputs else 'is gone'}"
            )
    if old.upstream != new.upstream:
        found.append("the stage before it changed")
    return found


def check(old: Fingerprint, new: Fingerprint, where: str) -> None:
    """Raises InputError naming the first difference: committed work is never silently mixed with other settings."""
    if old.digest != new.digest:
        changed = differences(old, new)
        raise InputError(
            f"{changed[0]}, but the committed stage {where!r} was made with it: use another run name, or set it back"
        )
