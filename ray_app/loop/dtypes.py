"""The number format of a run (`dtype: auto`): decided once, for engines and trainer alike."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import ray

from ray_app.loop.config import IterateSettings
from ray_app.system import precision
from ray_app.system.precision import Dtype, Kind

log = logging.getLogger(__name__)


def decided_dtype(settings: IterateSettings, own: Dtype | None, grows: bool = False) -> Dtype | None:
    """What the run computes in where a setting says `auto`; None where none does. `own`: as it was begun; `grows`: more
    nodes may come.
    """
    asked = [settings.generator] if settings.generates else []
    roles = [engine for engine in (*asked, *settings.judges.values()) if engine.kind == "vllm"]
    named = [engine.dtype for engine in roles] + ([settings.train.dtype] if settings.iterations else [])
    if "auto" not in named:
        return None
    gpus = ray.cluster_resources().get("GPU", 0)
    if grows and not gpus and any(engine.device == "auto" for engine in roles):
        return None  # the pools say that it cannot be told
    kinds: set[Kind] = {"cpu" if engine.resolved(gpus).device == "cpu" else "cuda" for engine in roles}
    if settings.iterations:
        kinds.add("cuda" if settings.train.use_gpu else "cpu")
    return precision.decided(kinds, own, grows)


def with_older_dtypes(settings: IterateSettings, begun: Mapping[str, Any]) -> IterateSettings:
    """A run that was begun with formats by name goes on in them; before there was `auto`, the default was one."""
    older = begun.get("settings")
    if not older:
        return settings
    named = {role: (older.get(role) or older["judge"])["dtype"] for role in ("generator", "first_judge", "judge")}
    engines = {
        role: engine if named[role] == "auto" else engine.decided(named[role])
        for role in named
        if (engine := getattr(settings, role)) is not None
    }
    trained = older["train"].get("dtype") or ("bfloat16" if older["train"].get("bf16", True) else "float32")
    train = settings.train if trained == "auto" else settings.train.decided(trained)
    if train != settings.train or any(engine != getattr(settings, role) for role, engine in engines.items()):
        log.info("dtype auto: this run was begun before there was auto, and goes on in %s", train.dtype)
    settings = settings.model_copy(update=engines)
    return settings if trained == "auto" else settings.each_training(lambda training: training.decided(trained))
