"""`judge` and `evaluate` as their users run them, with an engine that needs no model."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
ENGINE = ["--model", "scripted", "--engine.kind", "scripted", "--engine.script", '{"gold_marker": "is"}']
QUIET = ["--no-ray.dashboard", "--ray.object_store_gib", "0.1"]


def command(name: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
    line = [sys.executable, "-m", f"ray_app.{name}", *map(str, arguments)]
    options: dict[str, Any] = {"cwd": ROOT, "env": environment, "capture_output": True, "text": True, "timeout": 300}
    ended = subprocess.run(line, **options, check=False)
    if ended.returncode == -signal.SIGABRT:
        # Seen once: Ray's core aborted while it shut down on a busy machine. The same command continues, as promised.
        ended = subprocess.run(line, **options, check=False)
    return ended


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]
