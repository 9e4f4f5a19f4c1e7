"""Places to keep a run, local and on an object store (fsspec's memory one); the helper `run_records` on the path."""

from __future__ import annotations

import os
import sys
import uuid
from pathlib import Path
from typing import Any

import pytest

from ray_app.run import storage

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(params=["local", "file_uri", "memory"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """URI of an empty folder."""
    if request.param == "local":
        return str(tmp_path / "a run [1]")
    if request.param == "file_uri":
        return f"file://{tmp_path}/run"
    return f"memory://{uuid.uuid4().hex}/run"


class Killed(BaseException):
    """The process dies here: nothing catches it."""


class _DyingOs:
    """The `os` of a process that dies before a rename and so cleans nothing up."""

    def __getattr__(self, name: str) -> Any:
        if name in ("link", "replace", "unlink"):
            raise Killed
        return getattr(os, name)


@pytest.fixture
def killed_before_rename(monkeypatch: pytest.MonkeyPatch) -> type[BaseException]:
    """The process dies between the temporary file and its rename; returns what that raises."""
    monkeypatch.setattr(storage, "os", _DyingOs())
    return Killed
