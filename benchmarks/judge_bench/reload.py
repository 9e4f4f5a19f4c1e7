"""From a new checkpoint to its first judgment: weights loaded into living engines, against engines started anew."""

from __future__ import annotations

import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

from judge_bench.app import RAY, judge
from judge_bench.work import Spec, write_pairs
from ray_app.engine.manager import PoolManager
from ray_app.engine.settings import EngineSettings
from ray_app.system.cluster import connected


def run(spec: Spec) -> list[dict[str, Any]]:
    """One record a repeat and way: seconds to have the weights, and to the first finished judgment."""
    settings = spec.engine().resolved(1 if spec.device == "cuda" else 0)
    records = []
    with connected(RAY), tempfile.TemporaryDirectory() as folder:
        pairs = write_pairs(spec, 0, Path(folder))
        manager = PoolManager("reload", may_grow=False)
        try:
            manager.get("judge", settings)
            for repeat in range(spec.repeats):
                checkpoint = Path(folder) / f"checkpoint-{repeat}"
                shutil.copytree(Path(spec.model).resolve(), checkpoint)
                fresh = settings.model_copy(update={"model": str(checkpoint)})
                for close_first in (False, True):
                    if close_first:
                        manager.close()
                    out = Path(folder) / f"out-{repeat}-{close_first}"
                    records.append({"repeat": repeat, **_timed(manager, fresh, spec, pairs, out)})
                    print(records[-1], flush=True)
        finally:
            manager.close()
    return records


def _timed(manager: PoolManager, settings: EngineSettings, spec: Spec, pairs: Path, out: Path) -> dict[str, Any]:
    written = time.time()
    serving = manager.get("judge", settings)
    how, ready, pool = serving.how, time.time() - written, serving.pool
    judge(manager, settings, pairs, 4, spec.program("until_correct"), out)
    first = min(s["first_answer"] for s in pool.stats() if s["first_answer"])
    return {"how": how, "ready_s": ready, "first_judgment_s": first - written}
