"""Engine settings: what is refused, and what follows from them."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from ray_app.engine.base import Start
from ray_app.engine.settings import EngineSettings
from ray_app.engine.vllm_engine import engine_arguments, environment, memory_of_share


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"replica": 2}, "replica"),
        ({"replicas": 0}, "replicas"),
        ({"replicas_per_gpu": 2, "tensor_parallel": 2}, "replicas_per_gpu"),
        ({"kind": "openai"}, "endpoint.base_url"),
        ({"env": {"HF_TOKEN": "x"}}, "HF_TOKEN"),
        ({"gpu_memory_utilization": 1.5}, "gpu_memory_utilization"),
    ],
)
def test_bad_settings_are_named(given: dict[str, Any], named: str) -> None:
    with pytest.raises(ValidationError, match=named):
        EngineSettings(model="m", **given)


def test_auto_device_follows_the_cluster() -> None:
    settings = EngineSettings(model="m")
    assert settings.resolved(0).device == "cpu"
    assert settings.resolved(8).device == "cuda"
    assert settings.resolved(0).gpus_per_replica == 0
    assert EngineSettings(model="m", device="cpu").resolved(8).device == "cpu"


def test_identity_is_all_that_may_change_an_answer() -> None:
    passed = {"tokenizer": "t", "max_num_seqs": 4, "block_size": 16}
    one = EngineSettings(model="here", revision="v1", dtype="bfloat16", vllm=passed)
    known = one.identity("a hash")
    assert known["vllm"] == {"tokenizer": "t"}
    assert (known["model"], known["revision"], known["dtype"]) == ("a hash", "v1", "bfloat16")
    moved = one.model_copy(update={"replicas": 8, "tensor_parallel": 2, "device": "cuda", "model": "there", "cpus": 9})
    assert moved.identity("a hash") == known


def test_two_batches_of_rows_are_in_flight() -> None:
    assert EngineSettings(model="m", max_num_seqs=100).in_flight == 200
    endpoint = {"base_url": "http://localhost/v1", "concurrency": 7}
    assert EngineSettings(model="m", kind="openai", endpoint=endpoint).in_flight == 7


def test_vllm_arguments() -> None:
    gpu = engine_arguments(EngineSettings(model="m", device="cuda", replicas_per_gpu=4, vllm={"quantization": "fp8"}))
    assert gpu["quantization"] == "fp8"
    assert gpu["gpu_memory_utilization"] == pytest.approx(0.225)
    assert gpu["enable_prefix_caching"] is True
    assert "enforce_eager" not in gpu
    assert "distributed_executor_backend" not in gpu
    assert "revision" not in gpu
    two = engine_arguments(EngineSettings(model="m", device="cuda", tensor_parallel=2))
    assert (two["tensor_parallel_size"], two["distributed_executor_backend"]) == (2, "mp")
    cpu = engine_arguments(EngineSettings(model="m", device="cpu", vllm={"enforce_eager": False}))
    assert cpu["enforce_eager"] is False  # the user has the last word
    assert "gpu_memory_utilization" not in cpu


def test_the_environment_of_an_engine_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    cpu = environment(EngineSettings(model="m", device="cpu", cpu_threads=3, cpu_kv_cache_gib=2, env={"A": "b"}))
    assert cpu["OMP_NUM_THREADS"] == "3"
    assert cpu["GOMP_SPINCOUNT"] == "1000", "threads that wait leave the core to other work"
    assert cpu["VLLM_CPU_KVCACHE_SPACE"] == "2"
    assert cpu["HF_HUB_OFFLINE"] == "1"
    assert cpu["A"] == "b"
    gpu = environment(EngineSettings(model="m", device="cuda"))
    assert not [name for name in gpu if "CPU" in name or "VISIBLE" in name]


def test_engines_that_share_a_gpu_are_told_their_part() -> None:
    gib = 2**30
    four = EngineSettings(model="m", device="cuda", replicas=4, replicas_per_gpu=4)
    share = memory_of_share(four, 80 * gib, gib)["kv_cache_memory_bytes"]
    assert 4 * (share + gib) < 0.9 * 80 * gib  # and room is left for what is no cache
    assert share > 8 * gib
    assert memory_of_share(EngineSettings(model="m", device="cuda"), 80 * gib, gib) == {}
    own = EngineSettings(model="m", device="cuda", replicas_per_gpu=4, vllm={"kv_cache_memory_bytes": 1})
    assert memory_of_share(own, 80 * gib, gib) == {}
    with pytest.raises(ValueError, match="replicas_per_gpu 4 is too many"):
        memory_of_share(four, 80 * gib, 16 * gib)


@pytest.mark.parametrize(
    ("sequences", "largest"), [(1, 8), (6, 8), (64, 64), (100, 104), (256, 256), (300, 304), (512, 512), (1024, 512)]
)
def test_the_fullest_decoding_batch_has_a_graph(sequences: int, largest: int) -> None:
    """vLLM captures steps of 8, of 16 from 256 on, up to 512; a limit between two steps would be cut to the lower."""
    made = engine_arguments(EngineSettings(model="m", device="cuda", max_num_seqs=sequences))
    assert made["max_cudagraph_capture_size"] == largest


def test_engines_that_sleep_or_start_without_weights_are_told_so() -> None:
    gpu = EngineSettings(model="m", device="cuda")
    assert "enable_sleep_mode" not in engine_arguments(gpu)
    asked = engine_arguments(gpu, Start(sleeps=True, without_weights=True))
    assert (asked["enable_sleep_mode"], asked["load_format"]) == (True, "dummy")
    own = gpu.model_copy(update={"vllm": {"cudagraph_capture_sizes": [1, 2]}})
    assert "max_cudagraph_capture_size" not in engine_arguments(own)
