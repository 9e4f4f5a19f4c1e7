"""vLLM's worker on processors, with a watch (`worker_cls`). Imported by vLLM alone."""

from __future__ import annotations

from vllm.v1.worker.cpu_worker import CPUWorker

from ray_app.engine.vllm_timed import Timed


class TimedWorker(Timed, CPUWorker):  # type: ignore[misc]  # vLLM's types are not read
    """Tells the parts of its start."""
