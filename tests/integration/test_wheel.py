"""The package as its user installs it: a wheel in an environment of its own, used in folders without this tree."""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from commands import ENGINE, QUIET, lines
from loop_runs import DEMO, ROOT, base_settings, environment
from packaging.requirements import Requirement

from ray_app import __version__
from ray_app.base.prompts import PROMPTS_DIR, load_prompt

SETTINGS: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
COMMANDS = ["iterate", "judge", "evaluate", "report"]
LOOK = """
import json, sys
from pathlib import Path
import ray_app
from ray_app.base.prompts import PROMPTS_DIR, load_prompt
print(json.dumps({
    "holders": [path for path in sys.path if Path(path, "ray_app").exists()],
    "package": str(Path(ray_app.__file__).parent),
    "typed": Path(ray_app.__file__).with_name("py.typed").is_file(),
    "prompts": {file.stem: load_prompt(file.stem).hash for file in PROMPTS_DIR.glob("*.yaml")},
}))
"""


@dataclass(frozen=True)
class Installed:
    """An environment that holds the wheel, and sees the packages that it needs in this one."""

    home: Path

    @property
    def packages(self) -> Path:
        (found,) = self.home.glob("lib/python3.*/site-packages")
        return found

    def run(self, folder: Path, program: str, *arguments: object) -> subprocess.CompletedProcess[str]:
        """A program of this environment, in `folder`."""
        kept = {name: value for name, value in environment().items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
        line = [str(self.home / "bin" / program), *map(str, arguments)]
        return subprocess.run(line, cwd=folder, env=kept, capture_output=True, text=True, timeout=300, check=False)

    def succeeds(self, folder: Path, program: str, *arguments: object) -> str:
        """What it prints; it must exit 0."""
        ended = self.run(folder, program, *arguments)
        assert ended.returncode == 0, ended.stdout[-1000:] + ended.stderr[-3000:]
        return ended.stdout


def pip(*arguments: object) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *map(str, arguments)]
    # With this tree on PYTHONPATH, pip would find the package there and install nothing.
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, cwd="/", env=kept, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def build_wheel(scratch: Path) -> Path:
    """The wheel of this tree, built from a copy: what an earlier build left in the tree would else be in it."""
    source = scratch / "source"
    shutil.copytree(ROOT / "ray_app", source / "ray_app", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    needs = [Requirement(need) for need in SETTINGS["build-system"]["requires"]]
    # Only where this environment has no such setuptools (since Python 3.12, venv installs none) is one downloaded.
    here = ["--no-build-isolation", "--no-index"] if all(map(is_here, needs)) else []
    pip("wheel", "--no-deps", *here, "--wheel-dir", scratch, source)
    (wheel,) = scratch.glob("*.whl")
    return wheel


def is_here(need: Requirement) -> bool:
    try:
        return importlib.metadata.version(need.name) in need.specifier
    except importlib.metadata.PackageNotFoundError:
        return False


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    scratch = tmp_path_factory.mktemp("wheel")
    made = Installed(scratch / "venv")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", made.home], check=True, timeout=300)
    python = made.home / "bin" / "python"
    pip("--python", python, "install", "--no-deps", "--no-index", "--no-compile", build_wheel(scratch))
    # Of a folder that is named by a .pth file, Python reads no .pth files: the editable install of this tree stays out.
    (made.packages / "dependencies.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    return made


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    folder = tmp_path / "empty"
    folder.mkdir()
    return folder


def test_the_wheel_has_the_prompts_and_its_types(installed: Installed, empty: Path) -> None:
    found = json.loads(installed.succeeds(empty, "python", "-c", LOOK))
    assert found["holders"] == [str(installed.packages)], "nothing but the wheel could be imported"
    assert found["package"] == str(installed.packages / "ray_app")
    assert found["typed"]
    assert found["prompts"] == {file.stem: load_prompt(str(file)).hash for file in PROMPTS_DIR.glob("*.yaml")}
    assert len(found["prompts"]) >= 8


@pytest.mark.parametrize("name", COMMANDS)
def test_a_console_command_is_the_module(installed: Installed, empty: Path, name: str) -> None:
    ended = installed.run(empty, f"ste-{name}", "--nonsense", "1")
    assert ended.returncode == 2
    assert ended.stderr.startswith("error: ")
    assert len(ended.stderr.splitlines()) == 1
    module = installed.run(empty, "python", "-m", f"ray_app.{name}", "--nonsense", "1")
    assert (module.returncode, module.stdout, module.stderr) == (2, ended.stdout, ended.stderr)


def test_there_is_a_console_command_for_each(installed: Installed) -> None:
    assert {file.name for file in (installed.home / "bin").glob("ste-*")} == {f"ste-{name}" for name in COMMANDS}


@pytest.mark.long
def test_it_judges_and_evaluates(installed: Installed, empty: Path, tmp_path: Path) -> None:
    """Judging starts beside another ray_app, as in a checkout: neither the command nor Ray's workers may import it."""
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text("".join(json.dumps(row) + "\n" for row in lines(DEMO / "validation.jsonl")[:3]))
    checkout = tmp_path / "checkout"
    (checkout / "ray_app").mkdir(parents=True)
    (checkout / "ray_app" / "__init__.py").write_text("raise SystemExit('this is not the wheel')\n")
    given = ["--input", pairs, "--output", "verdicts.jsonl"]
    printed = installed.succeeds(checkout, "ste-judge", *ENGINE, *QUIET, *given)
    assert printed.startswith("3 verdicts in verdicts.jsonl")
    judged = lines(checkout / "verdicts.jsonl")
    assert [verdict["id"] for verdict in judged] == [row["id"] for row in lines(pairs)]
    assert all(set(verdict["orders"]) == {"ab", "ba"} for verdict in judged)

    installed.succeeds(empty, "ste-evaluate", *ENGINE, *QUIET, "--benchmark", f"set={pairs}", "--output", "scores")
    summary = json.loads((empty / "scores" / "summary.json").read_text())["set"]
    assert summary["n"] == 3
    assert lines(empty / "scores" / "set" / "verdicts.jsonl") == judged, "the same judge, the same seeds"


def test_it_runs_the_loop(installed: Installed, empty: Path, tmp_path: Path) -> None:
    """Without training. All paths of the settings are the user's; run.json says which version made the run."""
    config = tmp_path / "config.yaml"
    classified = base_settings(tmp_path)["instructions"] | {"classify": True}
    config.write_text(yaml.safe_dump(base_settings(tmp_path) | {"instructions": classified, "limit": 4}))
    installed.succeeds(empty, "ste-iterate", "--config", config)
    run = json.loads((tmp_path / "run" / "run.json").read_text())
    assert (run["version"], run["revision"]) == (__version__, None)
    assert list(empty.iterdir()) == []
