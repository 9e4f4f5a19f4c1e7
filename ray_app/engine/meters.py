"""Ray metrics of an engine actor: `ray_ste_…_total` at each node's metrics port, by role, stage and iteration."""

from __future__ import annotations

from typing import Any

from ray.util.metrics import Counter, Histogram

from ray_app.engine.base import UnitResult, Work

COUNTED = ("prompt_tokens", "completion_tokens", "samples", "kept", "unparsed")
TAGS = ("role", "stage", "iteration")
BOUNDARIES_S = [0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000]


class Meters:
    """Counters and the latency histogram of one replica."""

    def __init__(self, role: str) -> None:
        self.role = role
        self.rows = Counter("ste_rows", description="units finished", tag_keys=TAGS)
        self.failures = Counter("ste_failures", description="units quarantined", tag_keys=TAGS)
        self.counted: dict[str, Any] = {
            name: Counter(f"ste_{name}", description=f"{name.replace('_', ' ')} of finished units", tag_keys=TAGS)
            for name in COUNTED
        }
        self.latency = Histogram(
            "ste_unit_seconds",
            description="seconds from a unit's start to its end",
            boundaries=BOUNDARIES_S,
            tag_keys=TAGS,
        )

    def count(self, result: UnitResult, work: Work, seconds: float) -> None:
        """Add one finished unit."""
        iteration = "" if work.iteration is None else str(work.iteration)
        tags = {"role": self.role, "stage": work.stage, "iteration": iteration}
        self.rows.inc(1, tags)
        if result.quarantine:
            self.failures.inc(len(result.quarantine), tags)
        for name, metric in self.counted.items():
            if result.counters.get(name):
                metric.inc(result.counters[name], tags)
        self.latency.observe(seconds, tags)
