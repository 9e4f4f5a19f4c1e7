"""A tool that cannot be fetched is one clear line and a failure, never a skip."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "fetch_tool.sh"
NEEDED = ("bash", "dirname", "id", "mktemp", "rm", "mkdir")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The script in a folder of its own, with a path that has nothing but the shell's tools."""
    (tmp_path / "scripts").mkdir()
    (tmp_path / "bin").mkdir()
    shutil.copy(SCRIPT, tmp_path / "scripts")
    for name in NEEDED:
        found = shutil.which(name)
        assert found
        (tmp_path / "bin" / name).symlink_to(found)
    return tmp_path


def fetch(checkout: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["bash", str(checkout / "scripts" / "fetch_tool.sh"), *arguments]
    return subprocess.run(command, env={"PATH": str(checkout / "bin")}, capture_output=True, text=True, check=False)


def program(checkout: Path, name: str, text: str) -> None:
    file = checkout / "bin" / name
    file.write_text(f"#!{shutil.which('bash')}\n{text}\n")
    file.chmod(0o755)


@pytest.mark.parametrize("name", ["chromium", "prometheus"])
def test_without_apt(checkout: Path, name: str) -> None:
    done = fetch(checkout, name)
    assert done.returncode == 1
    assert done.stderr == f"error: {name} is not on the path, and there is no apt-get to fetch it with\n"


@pytest.mark.parametrize("name", ["chromium", "prometheus"])
def test_an_apt_that_fails(checkout: Path, name: str) -> None:
    program(checkout, "apt-get", "exit 100")
    done = fetch(checkout, name)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert name in line.lower()


def test_what_is_on_the_path_is_taken(checkout: Path) -> None:
    for name in ("google-chrome", "prometheus", "promtool"):
        program(checkout, name, "exit 9")
    assert fetch(checkout, "chromium").returncode == 0
    assert fetch(checkout, "prometheus").returncode == 0


def test_another_tool_is_none(checkout: Path) -> None:
    assert fetch(checkout, "grafana").returncode == 1
    assert fetch(checkout).returncode == 1
