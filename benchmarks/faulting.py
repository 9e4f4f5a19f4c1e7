"""What is done to engines and to helpers of a stage by `faults.py` and by the tests of faults: whom to hit, with what.

A poison row holds a word whose tokens end the process of a vLLM that has the plugin of tests/vllm_plugin.
"""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

import psutil
import ray

ROOT = Path(__file__).resolve().parents[1]
CLIENT, WRITER = "ray::MapWorker(MapBatches(PoolClient", "ray::_WriterActor"  # how Ray titles a stage's helpers
POISON = " zyxgob"


def newest_child(title: str) -> psutil.Process:
    """The youngest process below this one whose title holds `title`: of this process's Ray, and no other's. Raises
    ValueError where there is none.
    """

    def titled(process: psutil.Process) -> bool:
        with contextlib.suppress(psutil.NoSuchProcess):
            return any(title in part for part in process.cmdline()[:1])
        return False

    found = [process for process in psutil.Process().children(recursive=True) if titled(process)]
    return max(found, key=lambda process: process.create_time())


def computing(actor: Any) -> int:
    """The process that vLLM computes in: on GPUs one below the actor, else the actor itself."""
    pid = int(ray.get(actor.ready.remote())["pid"])
    below = psutil.Process(pid).children(recursive=True)
    return next((one.pid for one in below if "EngineCore" in " ".join(one.cmdline())), pid)


def poisoned_environment(model: str) -> dict[str, str]:
    """The environment of an engine of `model` that ends with every row that holds POISON."""
    from transformers import AutoTokenizer

    ids = AutoTokenizer.from_pretrained(model).encode(POISON, add_special_tokens=False)
    paths = [str(ROOT / "tests" / "vllm_plugin"), str(ROOT), os.environ.get("PYTHONPATH", "")]
    return {"PYTHONPATH": os.pathsep.join(path for path in paths if path), "STE_POISON": json.dumps(ids)}
