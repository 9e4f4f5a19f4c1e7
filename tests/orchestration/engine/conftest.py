"""A local Ray for the tests of pools and clients, and units of work with a known better side."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import ray
import ray.data
from local_ray import start_ray

from ray_app.base.prompts import load_prompt
from ray_app.engine.base import Sampling
from ray_app.engine.settings import EngineSettings
from ray_app.generation.programs.judge import JudgeProgram
from ray_app.generation.programs.rows import pair_units

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="package")
def cluster() -> Iterator[None]:
    """Four CPUs on this machine; workers find ray_app."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(p for p in (str(ROOT), before) if p)
    start_ray(num_cpus=4, object_store_memory=200 * 2**20, include_dashboard=False, log_to_driver=False)
    ray.data.DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # it prints every counter of a failed graph
    yield
    ray.shutdown()
    if before is None:
        del os.environ["PYTHONPATH"]
    else:
        os.environ["PYTHONPATH"] = before


def make_units(pairs: int) -> list[dict[str, Any]]:
    """Both orders of `pairs` pairs whose chosen response holds the scripted engine's gold marker."""
    rows = []
    for i in range(pairs):
        pair = {"pair_id": f"p{i:06d}", "instruction": f"Question {i}?"}
        rows += pair_units({**pair, "chosen": f"GOOD answer {i}", "rejected": f"poor answer {i}"})
    return rows


@pytest.fixture
def units() -> Callable[[int], list[dict[str, Any]]]:
    return make_units


@pytest.fixture
def dataset() -> Callable[[int], ray.data.Dataset]:
    """Units as a dataset of several blocks."""
    return lambda pairs: ray.data.from_arrow(
        [pa.Table.from_pylist(make_units(pairs)[i::4]) for i in range(4) if make_units(pairs)[i::4]]
    )


@pytest.fixture
def program() -> Callable[..., JudgeProgram]:
    """A judging program; until_correct with at most 15 samples unless told otherwise."""

    def make(mode: Any = "until_correct", samples: int = 15, **more: Any) -> JudgeProgram:
        return JudgeProgram(
            prompt=load_prompt("judge_pairwise_small"),
            sampling=Sampling(max_tokens=64),
            mode=mode,
            samples=samples,
            judge="scripted",
            run_seed=more.pop("run_seed", 7),
            iteration=1,
            stage="judgments",
            key=("pair_id", "order"),
            **more,
        )

    return make


@pytest.fixture
def scripted() -> Callable[..., EngineSettings]:
    """Settings of scripted engines that take no CPU of Ray's."""

    def make(script: dict[str, Any] | None = None, **more: Any) -> EngineSettings:
        given = {"model": "scripted", "kind": "scripted", "cpus": 0, "max_num_seqs": 16, **more}
        return EngineSettings(script=script or {}, **given)

    return make
