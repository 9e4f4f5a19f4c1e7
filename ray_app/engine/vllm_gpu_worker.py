"""vLLM's worker on GPUs, with a watch (`worker_cls`). Imported by vLLM alone."""

from __future__ import annotations

from vllm.v1.worker.gpu_worker import Worker

from ray_app.engine.vllm_timed import Timed


class TimedWorker(Timed, Worker):  # type: ignore[misc]  # vLLM's types are not read
    """Tells the parts of its start."""
