"""scripts/gpu_evidence.sh: every arm that its head names gives settings that can be, and differ from the others'."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "scripts" / "gpu_evidence.sh"
ARMS = re.findall(r"^  ([a-z-]+)\) options=", SCRIPT.read_text(encoding="utf-8"), re.MULTILINE)
LOAD = """
import sys
from ray_app.command.load_settings import load_settings
from ray_app.loop.config import IterateSettings
print("SETTINGS", load_settings(IterateSettings, sys.argv[1:]).model_dump_json())
"""


def settings_of(arm: str, folder: Path) -> dict[str, object]:
    """What `python -m ray_app.iterate` would be given: a stand-in for it prints its settings."""
    (folder / "eval").mkdir(parents=True, exist_ok=True)
    for name in ("llmbar_casestudy", "hhh"):
        (folder / "eval" / f"{name}.jsonl").touch()
    (folder / "load.py").write_text(LOAD, encoding="utf-8")
    python = folder / "python"
    python.write_text(f'#!/bin/sh\nshift 2\nexec {sys.executable} {folder}/load.py "$@"\n', encoding="utf-8")
    python.chmod(0o755)
    env = {**os.environ, "OUT": str(folder / "out"), "DATA": str(folder), "PYTHON": str(python)}
    done = subprocess.run(["bash", str(SCRIPT), arm], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("SETTINGS "))
    found: dict[str, object] = json.loads(line.removeprefix("SETTINGS "))
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One for all arms: paths in their settings are the same."""
    return tmp_path_factory.mktemp("arms")


@pytest.fixture(scope="module")
def plain(folder: Path) -> dict[str, object]:
    return settings_of("neighbour", folder)


@pytest.mark.parametrize("arm", ARMS)
def test_an_arm_is_a_run_of_its_own(folder: Path, plain: dict[str, object], arm: str) -> None:
    head = SCRIPT.read_text(encoding="utf-8").split("\nset -euo")[0]
    assert re.search(rf"\b{arm}\b", head), "the script's head names it"
    found = settings_of(arm, folder)
    assert found["name"] == arm
    differing = {name for name in plain if found[name] != plain[name]} - {"name"}
    assert bool(differing) == (arm != "neighbour")


def test_an_arm_runs_again_under_another_name(folder: Path, plain: dict[str, object]) -> None:
    """A name of its own, whatever it is: no other arm's run is gone on with."""
    assert settings_of("neighbour@bare", folder) == {**plain, "name": "neighbour.bare"}
