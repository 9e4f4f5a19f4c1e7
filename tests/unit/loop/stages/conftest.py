"""Settings of a loop, and a run that needs no Ray."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from loop_runs import base_settings, merged

from ray_app.command.load_settings import load_settings
from ray_app.engine.manager import PoolManager
from ray_app.generation.runner import Runner
from ray_app.loop.config import IterateSettings
from ray_app.loop.stages.context import Context
from ray_app.loop.stages.inputs import Inputs
from ray_app.run.folder import RunFolder

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
