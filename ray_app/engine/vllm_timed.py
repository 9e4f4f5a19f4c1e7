"""How long each part of an engine's start takes: mixed into vLLM's workers (`vllm_gpu_worker`, `vllm_cpu_worker`).

The parts are the methods that vLLM's engine calls one after the other at a start, the same in vLLM 0.26 to 0.32. What
it compiles is measured by vLLM itself, inside the profiling run.
"""

from __future__ import annotations

import time
from typing import Any


class Timed:
    """Mixed into a worker, before its own class."""

    vllm_config: Any
    parts: dict[str, float]

    def init_device(self) -> Any:
        return self._timed("device", "init_device")

    def load_model(self, **options: Any) -> Any:
        return self._timed("load", "load_model", **options)

    def determine_available_memory(self) -> Any:
        return self._timed("profile", "determine_available_memory")

    def compile_or_warm_up_model(self) -> Any:
        return self._timed("warm_up", "compile_or_warm_up_model")

    def _timed(self, name: str, method: str, **options: Any) -> Any:
        started = time.monotonic()
        result = getattr(super(), method)(**options)
        self.__dict__.setdefault("parts", {})[name] = time.monotonic() - started
        return result

    def expect_files(self) -> None:
        """After a start without weights: those that come are in files (vLLM reloads by the way of its first load)."""
        self.vllm_config.load_config.load_format = "auto"

    def start_parts(self) -> dict[str, float]:
        """Seconds of this worker's start: device, load, profile without compile, compile, warm_up (graphs too)."""
        parts = dict(self.__dict__.get("parts", {}))
        compiled = float(self.vllm_config.compilation_config.compilation_time or 0.0)
        if compiled:
            parts = {**parts, "profile": max(0.0, parts.get("profile", 0.0) - compiled), "compile": compiled}
        return parts
