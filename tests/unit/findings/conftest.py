"""A finished run to look at: the recorded one of scripted engines, made in pairwise mode."""

from __future__ import annotations

import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
import recorded


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """Folder of a recorded run, by its name."""
    where = tmp_path_factory.mktemp("runs")
    with tarfile.open(recorded.FOLDERS) as packed:
        packed.extractall(where, filter="data")

    def folder(name: str) -> str:
        found: Path = where / "runs" / name
        assert found.is_dir()
        return str(found)

    return folder
