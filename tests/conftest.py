"""What integration and fault tests share: the real model, and loops run as their user runs them (`loop_runs`)."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from loop_runs import ROOT, Loop

from ray_app.cli import leave

# Machines are noisy: no test may fail because an example was slow. The examples are the same in every run.
settings.register_profile("steady", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("steady")

EXIT = pytest.StashKey[int]()
MODEL = ROOT / ".cache" / "models" / "smollm2-135m-instruct"


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    if exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):  # of the rest pytest still has to tell
        session.config.stash[EXIT] = int(exitstatus)


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    """The verdict stands: how Ray's native threads end does not change it (`ray_app.cli.leave`)."""
    if EXIT in config.stash and not hasattr(config, "workerinput"):
        leave(config.stash[EXIT])


@pytest.fixture(scope="session")
def model() -> str:
    """SmolLM2-135M-Instruct, as `make setup` leaves it."""
    if not (MODEL / "config.json").is_file():
        pytest.fail(f"{MODEL} is missing: run `make setup`")
    os.environ["HF_HUB_OFFLINE"] = "1"
    return str(MODEL)


@pytest.fixture
def loop(tmp_path: Path) -> Iterator[Callable[..., Loop]]:
    """Makes loops in this test's folder; what they started is gone when the test ends."""
    made: list[Loop] = []

    def make(**settings: Any) -> Loop:
        made.append(Loop(tmp_path, settings))
        return made[-1]

    yield make
    for one in made:
        one.stop()
