"""An engine gives its GPUs to training and takes them back, as between the stages of a loop, judging before and after.

On GPUs it sleeps and wakes with weights read anew; on processors it ends and starts.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

from judge_bench.app import RAY, judge
from judge_bench.held import held, left
from judge_bench.work import Spec, write_pairs
from ray_app.engine.manager import PoolManager
from ray_app.system.cluster import connected
from ray_app.train.settings import TrainSettings


def run(spec: Spec) -> list[dict[str, Any]]:
    """One record a part: started, judged, handed over, back, judged again, closed."""
    gpu = spec.device == "cuda"
    settings = spec.engine().resolved(1 if gpu else 0)
    trainer = TrainSettings(workers=spec.tensor_parallel * spec.replicas, use_gpu=gpu)
    found: list[dict[str, Any]] = []

    def note(part: str, began: float, **told: Any) -> None:
        found.append({"what": part, "seconds": round(time.monotonic() - began, 2), **told, **held()})
        print(found[-1], flush=True)

    with connected(RAY), tempfile.TemporaryDirectory() as folder:
        manager = PoolManager("handover", may_grow=False, sleeps=True)
        try:
            for repeat, come in enumerate(("started", "back")):
                began = time.monotonic()
                serving = manager.get("judge", settings)
                note(come, began, how=serving.how, parts=serving.pool.parts if serving.how == "started" else {})
                began, pairs = time.monotonic(), write_pairs(spec, repeat, Path(folder))
                record = judge(manager, settings, pairs, spec.pairs, spec.program("all", repeat), Path(folder) / come)
                note("judged", began, **{k: v for k, v in record.items() if k not in ("samples", "seconds")})
                began = time.monotonic()
                if come == "started":
                    manager.release_for_training(trainer)
                    note("handed over", began)
        finally:
            manager.close()
            found.append({"what": "closed", **left()})
    return found
