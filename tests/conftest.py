"""What integration and fault tests share: the real model, and loops run as their user runs them (`loop_runs`)."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from loop_runs import ROOT, TRIALS, Loop

from ray_app.command.load_settings import leave
from ray_app.system import stopping

# Machines are noisy: no test may fail because an example was slow. The examples are the same in every run.
settings.register_profile("steady", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("steady")

EXIT = pytest.StashKey[int]()
# From the longest on: what is left at the end keeps one process waiting for the other.
LONGEST = (
    "tests/integration/train/",
    "tests/integration/test_loop.py",
    "tests/integration/engine/",
    "tests/faults/test_stop.py",
    "tests/integration/test_recorded_runs.py",
    "tests/integration/test_selection_in_loop.py",
    "tests/integration/test_cluster_job.py",
    "tests/orchestration/engine/test_streaming.py",
    "tests/orchestration/engine/test_client.py",
    "tests/integration/",
    "tests/faults/",
)
# Folders whose tests share a Ray, an engine or a training run.
SHARED = ("tests/integration/engine", "tests/integration/train", "tests/gpu/train", "tests/orchestration/on_gpus")
MODEL = ROOT / ".cache" / "models" / "smollm2-135m-instruct"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes longest begins first, so that both processes end at about the same time."""
    items.sort(
        key=lambda item: next((i for i, name in enumerate(LONGEST) if item.nodeid.startswith(name)), len(LONGEST))
    )


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Which tests go to one process of pytest-xdist: those of a module, or of a SHARED folder."""
    if config.getvalue("dist") != "load":  # `-n` alone; who names another way gets it
        return None
    from xdist.scheduler import LoadFileScheduling

    class Together(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file: str = super()._split_scope(nodeid)
            return next((folder for folder in SHARED if file.startswith(f"{folder}/")), file)

    return Together(config, log)


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    if not hasattr(session.config, "workerinput"):  # the last to end
        shutil.rmtree(TRIALS, ignore_errors=True)
    if exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):  # of the rest pytest still has to tell
        session.config.stash[EXIT] = int(exitstatus)


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    """The verdict stands: how Ray's native threads end does not change it (`ray_app.command.load_settings.leave`)."""
    # A worker of pytest-xdist still has to say that it is done; how it ends after that, nobody asks.
    if EXIT in config.stash and not hasattr(config, "workerinput"):
        leave(config.stash[EXIT])


@pytest.fixture(autouse=True)
def unstopped() -> Iterator[None]:
    """A command that a test interrupts leaves its process as one that is to end at once; the next test has time."""
    yield
    stopping._state.number, stopping._state.deadline = None, math.inf


@pytest.fixture(scope="session")
def model() -> str:
    """SmolLM2-135M-Instruct, as `make setup` leaves it."""
    if not (MODEL / "config.json").is_file():
        pytest.fail(f"{MODEL} is missing: run `make setup`")
    os.environ["HF_HUB_OFFLINE"] = "1"
    return str(MODEL)


@pytest.fixture(scope="session")
def shallow(model: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """SmolLM2's embedding and first two of 30 layers: trained as the whole model is, in a fifth of the time. For tests
    of what happens around training, where judging is scripted and no text of it is read.
    """
    from safetensors.torch import load_file, save_file

    folder = tmp_path_factory.mktemp("shallow")
    for file in Path(model).iterdir():
        if file.suffix in (".json", ".jinja", ".txt"):
            shutil.copy(file, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 2}))
    weights = load_file(Path(model) / "model.safetensors")
    kept = {name: t for name, t in weights.items() if not re.search(r"\.layers\.([2-9]|\d\d)\.", name)}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    return str(folder)


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
