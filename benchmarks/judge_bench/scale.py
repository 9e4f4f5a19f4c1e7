"""The driver under many pairs: scripted engines, so that only the orchestration costs time and memory."""

from __future__ import annotations

import tempfile
import threading
from pathlib import Path
from typing import Any

import psutil

from judge_bench.app import RAY, judge
from judge_bench.work import Spec, write_pairs
from ray_app.engine.manager import PoolManager
from ray_app.engine.settings import EngineSettings
from ray_app.system.cluster import connected

P = [0.05, 0.2, 0.5, 0.7, 0.95]


def run(sizes: list[int]) -> list[dict[str, Any]]:
    """One record a size: seconds, units a second, and how much the driver's memory grew."""
    settings = EngineSettings(model="scripted", kind="scripted", max_num_seqs=256, script={"p": P}, cpus=0)
    records = []
    with connected(RAY), tempfile.TemporaryDirectory() as folder:
        manager = PoolManager("scale", may_grow=False)
        try:
            for number, size in enumerate([100, *sizes]):  # the first warms up
                spec = Spec(model="scripted", pairs=size, samples=15, sentences=(1, 2))
                pairs = write_pairs(spec, number, Path(folder))
                with Memory() as memory:
                    record = judge(
                        manager, settings, pairs, size, spec.program("until_correct"), Path(folder) / f"out-{number}"
                    )
                del record["samples"]
                record |= {"pairs": size, "units_per_s": 2 * size / record["seconds"], **memory.growth()}
                records.append(record)
                print(record, flush=True)
        finally:
            manager.close()
    return records[1:]


class Memory:
    """Resident memory of this process, twice a second."""

    def __enter__(self) -> Memory:
        self.process = psutil.Process()
        self.before = self.most = self.process.memory_info().rss
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self._watch, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        self.thread.join()

    def _watch(self) -> None:
        while not self.stop.wait(0.5):
            self.most = max(self.most, self.process.memory_info().rss)

    def growth(self) -> dict[str, float]:
        return {"rss_before_mib": self.before / 2**20, "rss_growth_mib": (self.most - self.before) / 2**20}
