"""A local Ray that counts GPUs there are none of: scripted engines take them, so what Ray counts is seen for real."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from local_ray import start_ray

from ray_app.engine.settings import EngineSettings

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="package")
def gpus() -> Iterator[int]:
    """Four GPUs by Ray's count."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(p for p in (str(ROOT), before) if p)
    start_ray(num_cpus=4, num_gpus=4, object_store_memory=200 * 2**20, include_dashboard=False, log_to_driver=False)
    yield 4
    ray.shutdown()
    if before is None:
        del os.environ["PYTHONPATH"]
    else:
        os.environ["PYTHONPATH"] = before


@pytest.fixture
def scripted() -> Callable[..., EngineSettings]:
    """Settings of scripted engines that take GPUs, and no CPU of Ray's."""

    def make(**more: Any) -> EngineSettings:
        return EngineSettings(**{"model": "scripted", "kind": "scripted", "device": "cuda", "cpus": 0, **more})

    return make
