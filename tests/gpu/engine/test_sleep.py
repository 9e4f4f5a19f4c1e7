"""A real engine on a real GPU sleeps, gives back its memory, and wakes with the weights it is asked for."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
import torch
from local_ray import start_ray

from ray_app.engine.manager import PoolManager
from ray_app.engine.settings import EngineSettings

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU on this machine")]
ROOT = Path(__file__).resolve().parents[3]
PROCESS_MIB = 4096  # CUDA's context, kernels and captured graphs of a process that lives on


@pytest.fixture
def handoff(monkeypatch: pytest.MonkeyPatch) -> Any:
    """benchmarks/handoff.py, whose questions are asked here too; engines' processes know it by that name as well."""
    for folder in (ROOT, ROOT / "benchmarks"):
        monkeypatch.setenv("PYTHONPATH", str(folder), prepend=":")
        monkeypatch.syspath_prepend(str(folder))
    return importlib.import_module("handoff")


@pytest.fixture
def pools(handoff: Any, model: str) -> Iterator[PoolManager]:
    start_ray(num_cpus=4, num_gpus=1, object_store_memory=200 * 2**20, include_dashboard=False)
    seed = EngineSettings(model=model, device="cuda", max_model_len=1024, max_num_seqs=64)
    manager = PoolManager("t", may_grow=False, sleeps=True, seed=seed)
    yield manager
    manager.close()
    ray.shutdown()


def test_it_wakes_as_it_was_and_with_other_weights(handoff: Any, pools: PoolManager, tmp_path: Path) -> None:
    seed = pools.seed
    assert seed is not None
    empty = handoff.gpu_mib()
    pool = pools.get("judge", seed).pool
    first = handoff.said(pool)
    pool.sleep()
    assert handoff.gpu_mib() - empty < PROCESS_MIB
    assert pools.get("judge", seed).how == "woken"
    assert handoff.said(pool) == first
    other = seed.of_checkpoint(handoff.other_weights(seed.model, str(tmp_path / "other")))
    pool.sleep()
    assert pools.get("judge", other).how == "woken"
    changed = handoff.said(pool)
    assert changed != first
    pools.close()
    assert handoff.gpu_mib() <= empty + 16
    pools.seed = None  # an engine that starts on that checkpoint by itself
    assert handoff.said(pools.get("judge", other).pool) == changed
