"""Ray metrics of an engine actor: `ray_ste_…_total` at each node's metrics port, by run, role, stage and iteration."""

from __future__ import annotations

from ray_app.engine.base import UnitResult, Work
from ray_app.system.ray_metrics import counter, histogram, of_iteration, set_gauge

COUNTED = ("prompt_tokens", "completion_tokens", "samples", "kept", "unparsed")


class Meters:
    """Counters, the latency histogram and the units in flight of one replica."""

    def __init__(self, role: str, run: str = "") -> None:
        self.role, self.run, self.in_flight = role, run, 0

    def began(self) -> None:
        """A unit came."""
        self._in_flight(1)

    def count(self, result: UnitResult, work: Work, seconds: float) -> None:
        """Add one finished unit."""
        self._in_flight(-1)
        iteration = of_iteration(work.iteration)
        tags = {"run": self.run, "role": self.role, "stage": work.stage, "iteration": iteration}
        counter("ste_rows").inc(1, tags)
        for entry in result.quarantine:
            counter("ste_failures").inc(1, {**tags, "reason": entry["reason"]})
        for name in COUNTED:
            if result.counters.get(name):
                counter(f"ste_{name}").inc(result.counters[name], tags)
        histogram("ste_unit_seconds").observe(seconds, tags)

    def _in_flight(self, change: int) -> None:
        self.in_flight += change
        set_gauge("ste_in_flight", self.in_flight, {"run": self.run, "role": self.role})
