"""Where the programs of Debian's Prometheus are."""

from __future__ import annotations

import os
import shutil

import pytest
from loop_runs import ROOT


def tool(name: str) -> str:
    """The path of `prometheus` or `promtool`: what make observe has fetched, or what is on the path."""
    found = shutil.which(name, path=f"{ROOT / '.cache/prometheus/usr/bin'}:{os.environ['PATH']}")
    if found is None:
        pytest.fail(f"{name} is not there: make observe fetches it (scripts/fetch_tool.sh prometheus)")
    return found
