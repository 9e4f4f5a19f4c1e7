"""Settings of a loop, and a run that needs no Ray, its generating stages included."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from closed import closed_units
from loop_runs import base_settings, merged

from ray_app.base.schema import unit_id
from ray_app.command.load_settings import load_settings
from ray_app.engine.manager import PoolManager
from ray_app.engine.scripted import ScriptedEngine
from ray_app.generation.runner import Job, Runner, StageResult, result_of
from ray_app.loop.config import IterateSettings
from ray_app.loop.stages.context import Context
from ray_app.loop.stages.inputs import Inputs
from ray_app.run.folder import RunFolder
from ray_app.run.shards import ShardWriter, shard_files
from ray_app.run.storage import read_parquet

Settings = Callable[..., IterateSettings]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings of a loop with scripted engines; sections given are merged over them."""

    def make(**more: Any) -> IterateSettings:
        config = tmp_path / "config.yaml"
        config.write_text(yaml.safe_dump(merged(base_settings(tmp_path), more)))
        return load_settings(IterateSettings, ["--config", str(config)])

    return make


@pytest.fixture
def context(settings: Settings) -> Callable[..., Context]:
    """A run of such settings. Its pools start nothing until they are asked."""

    def make(**more: Any) -> Context:
        made = settings(**more)
        return Context(made, RunFolder(made.run_uri), Runner(PoolManager(run_id="test")), Inputs(made))

    return make


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Jobs are done here, row by row, by their scripted engine; what closed shards hold is not redone. The units that
    were asked for, as they are.
    """
    units: list[str] = []

    def rows(_: Context, directory: str) -> list[dict[str, Any]]:
        return [row for file in shard_files(directory) for row in read_parquet(file).to_pylist()]

    def run(_: Runner, job: Job) -> StageResult:
        done, engine = (
            closed_units(job.directory, job.key, job.where, job.where and job.stage),
            ScriptedEngine(job.engine),
        )
        with ShardWriter(job.directory, job.schema) as writer:
            for row in job.source:
                if unit_id(row, job.key) not in done:
                    units.append(unit_id(row, job.key))
                    made = asyncio.run(job.program(engine, row))
                    writer.add(made.rows)
                    writer.quarantine(made.quarantine)
        return result_of(job, {}, 0.0, {})

    monkeypatch.setattr(Context, "dataset", rows)
    monkeypatch.setattr(Runner, "run", run)
    return units
