"""What engines hold of this machine: memory of its GPUs, and processes."""

from __future__ import annotations

import shutil
import subprocess
import time
from typing import Any

import psutil

TITLES = ("ray::EngineActor", "VLLM::")
FREE_S = 30.0


def gpu_mib() -> list[int]:
    """Memory in use on every GPU; empty where there is none."""
    if not shutil.which("nvidia-smi"):
        return []
    asked = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    return [int(line) for line in subprocess.run(asked, capture_output=True, text=True, check=True).stdout.split()]


def engine_processes() -> int:
    """Processes below this one that are engines or their workers."""
    found = 0
    for process in psutil.Process().children(recursive=True):
        try:
            found += " ".join(process.cmdline()).startswith(TITLES)
        except psutil.Error:  # it has ended meanwhile
            continue
    return found


def held() -> dict[str, Any]:
    """Both, now."""
    return {"gpu_mib": gpu_mib(), "engine_processes": engine_processes()}


def left(limit_s: float = FREE_S) -> dict[str, Any]:
    """Both, as soon as nothing is left or after `limit_s`, and the seconds that it took: a driver frees memory late."""
    began = time.monotonic()
    while True:
        now, seconds = held(), time.monotonic() - began
        if seconds >= limit_s or not (any(now["gpu_mib"]) or now["engine_processes"]):
            return {**now, "seconds": round(seconds, 1)}
        time.sleep(0.5)
