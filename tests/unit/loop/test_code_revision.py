"""What run.json says of the code: its git revision, and that of no repository around it."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from ray_app.loop import run_record


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The loop's module in a repository of its user, which does not track it."""
    path = tmp_path / "venv" / "ray_app" / "run_record.py"
    path.parent.mkdir(parents=True)
    path.touch()
    (tmp_path / "README").touch()
    git(tmp_path, "init")
    git(tmp_path, "add", "README")
    commit(tmp_path)
    monkeypatch.setattr(run_record, "__file__", str(path))
    return path


def git(folder: Path, *arguments: str) -> str:
    own = [part for name in ("user.name=n", "user.email=e@localhost", "commit.gpgsign=false") for part in ("-c", name)]
    command = ["git", "-C", str(folder), *own, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def commit(folder: Path) -> None:
    git(folder, "commit", "--no-verify", "--message", "m")


def test_a_repository_around_an_installed_package_is_not_its_revision(module: Path) -> None:
    assert run_record.revision() is None


def test_a_checkout_has_its_revision_and_says_that_it_was_edited(module: Path) -> None:
    git(module.parent, "add", module.name)
    commit(module.parent)
    assert run_record.revision() == git(module.parent, "rev-parse", "HEAD")
    module.write_text("edited")
    assert re.fullmatch(r"[0-9a-f]{40}\+changes", run_record.revision() or "")


def test_without_git_there_is_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert run_record.revision() is None
