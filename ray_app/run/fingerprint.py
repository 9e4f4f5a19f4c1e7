"""Fingerprints: what a committed stage was made with, and what no longer fits. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict

from ray_app.base.schema import canonical, content_id
from ray_app.errors import InputError

SHOWN = 3  # differences an error names; one line must stay readable


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
    """What changed, in words; upstream changes last, since they follow from an earlier stage's. Empty exactly when
    the digests agree.
    """
    found = [f"setting {name} {change}" for name, change in _changes(old.settings, new.settings)]
    for name, _ in _changes(old.inputs, new.inputs):
        if name not in new.inputs:
            found.append(f"input {name} is gone")
        else:
            found.append(f"the content of {name} changed" if name in old.inputs else f"input {name} appeared")
    if old.stage != new.stage:
        found.append(f"the stage was {old.stage!r}, is now {new.stage!r}")
    if old.upstream != new.upstream:
        found.append("the stage before it changed")
    return found


def _changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(name, what changed), compared as the digest does: as JSON, where true is not 1 and null is not absent."""
    found = []
    for name in sorted({*old, *new}):
        if name not in old:
            found.append((name, f"was not set, is now {new[name]!r}"))
        elif name not in new:
            found.append((name, f"was {old[name]!r}, is now not set"))
        elif canonical(old[name]) != canonical(new[name]):
            found.append((name, f"was {old[name]!r}, is now {new[name]!r}"))
    return found


def check(old: Fingerprint, new: Fingerprint, where: str) -> None:
    """Raises InputError naming what differs: committed work is never silently mixed with other settings."""
    if old.digest != new.digest:
        raise InputError(
            f"{_told(old, new)}: the committed stage {where!r} was made before that; "
            "use another run name, or set it back"
        )


def check_started(old: Fingerprint, new: Fingerprint, where: str, directory: str) -> None:
    """Raises InputError naming what differs: the closed shards of an interrupted stage are work like any other."""
    if old.digest != new.digest:
        raise InputError(
            f"{_told(old, new)}: the interrupted stage {where!r} was begun before that; "
            f"set it back, or remove {directory} to begin that stage again"
        )


def _told(old: Fingerprint, new: Fingerprint) -> str:
    changed = differences(old, new)
    more = f" (and {len(changed) - SHOWN} more)" if len(changed) > SHOWN else ""
    return "; ".join(changed[:SHOWN]) + more
