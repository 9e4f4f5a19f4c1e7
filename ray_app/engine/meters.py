"""Ray metrics of an engine actor: `ray_ste_…_total` at each node's metrics port, tagged by role and stage."""

from __future__ import annotations

from typing import Any

from ray.util.metrics import Counter, Histogram

from ray_app.engine.base import UnitResult

COUNTED = ("prompt_tokens", "completion_tokens", "samples", "kept", "unparsed")
TAGS = ("role", "stage")
BOUNDARIES_S = [0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000]


class Meters:
    """Counters and the latency histogram of one role in one stage ("judgments", "iteration 2: judgments")."""

    def __init__(self, role: str, stage: str) -> None:
        self.tags = {"role": role, "stage": stage}
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

    def count(self, result: UnitResult, seconds: float) -> None:
        """Add one finished unit."""
        self.rows.inc(1, self.tags)
        if result.quarantine:
            self.failures.inc(len(result.quarantine), self.tags)
        for name, metric in self.counted.items():
            if result.counters.get(name):
                metric.inc(result.counters[name], self.tags)
        self.latency.observe(seconds, self.tags)
