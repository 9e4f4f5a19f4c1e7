"""Every metric that this program gives to Ray, in one list: what it is called, what it counts, and by what tags.

Ray serves them at each node's metrics port, counters as `ray_<name>_total` and all others as `ray_<name>`
(ray.util.metrics). The dashboard and the alert rules (scripts/dashboard.py) are held to this list by a test.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

ASKED = ("run", "role", "stage", "iteration")  # tags of what engines are asked
MADE = ("run", "stage", "iteration")  # tags of what a committed stage has
SECONDS = [0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000]  # upper bounds of the histogram's buckets


@dataclass(frozen=True)
class Metric:
    """One metric by its name without Ray's prefix."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    description: str
    tags: tuple[str, ...]

    @property
    def exported(self) -> str:
        """Its name at the metrics port; a histogram's series add `_bucket`, `_sum` and `_count`."""
        return f"ray_{self.name}_total" if self.kind == "counter" else f"ray_{self.name}"


METRICS = {
    metric.name: metric
    for metric in (
        # Of each engine, as its units finish.
        Metric("ste_rows", "counter", "units finished", ASKED),
        Metric("ste_failures", "counter", "units quarantined", (*ASKED, "reason")),
        Metric("ste_prompt_tokens", "counter", "prompt tokens of finished units", ASKED),
        Metric("ste_completion_tokens", "counter", "completion tokens of finished units", ASKED),
        Metric("ste_samples", "counter", "samples of finished units", ASKED),
        Metric("ste_kept", "counter", "units with a judgment to keep", ASKED),
        Metric("ste_unparsed", "counter", "samples of finished units that hold no verdict", ASKED),
        Metric("ste_unit_seconds", "histogram", "seconds from a unit's start to its end", ASKED),
        Metric("ste_in_flight", "gauge", "units that an engine has and has not finished", ("run", "role")),
        # Of the driver, while a stage goes on. `work` is the stage as the log calls it.
        Metric("ste_units_left", "gauge", "units that are not in a shard yet", ("run", "work")),
        Metric("ste_tokens_made", "gauge", "tokens that the engines made since they started", ("run", "work")),
        # Of the driver, from the stages that are committed.
        Metric("ste_stage_seconds", "gauge", "wall time of a committed stage", MADE),
        Metric("ste_stage_rows", "gauge", "rows of a committed stage", MADE),
        Metric("ste_quarantined", "gauge", "rows that a committed stage quarantined", (*MADE, "reason")),
        Metric("ste_gpu_idle_share", "gauge", "share of its GPU time that a stage did not use", MADE),
        Metric("ste_keep_rate", "gauge", "share of units with a judgment to keep", ("run", "iteration")),
        Metric("ste_pass_rate", "gauge", "share of units whose first judgment is right", ("run", "iteration")),
        Metric("ste_accuracy", "gauge", "accuracy on an evaluation set", ("run", "iteration", "set")),
        Metric("ste_alarm", "gauge", "what an alarm saw", ("run", "iteration", "alarm")),
        Metric("ste_alarms", "gauge", "alarms that the run has raised", ("run",)),
        # Of the trainer, at every point of its curves. Recipes add figures of their own: ste_train_<name>.
        Metric("ste_train_step", "gauge", "training: step", ("run",)),
        Metric("ste_train_loss", "gauge", "training: loss", ("run",)),
        Metric("ste_train_lr", "gauge", "training: lr", ("run",)),
        Metric("ste_train_grad_norm", "gauge", "training: grad_norm", ("run",)),
        Metric("ste_train_tokens_per_second", "gauge", "training: tokens_per_second", ("run",)),
        Metric("ste_train_mfu", "gauge", "training: mfu (on GPUs)", ("run",)),
    )
}
_MADE: dict[str, Any] = {}  # this process's instances: one a name, however often it is asked for


def counter(name: str) -> Any:
    """This process's counter of the list."""
    from ray.util.metrics import Counter

    return _instance(Counter, METRICS[name])


def histogram(name: str) -> Any:
    """This process's histogram of the list; its buckets are seconds."""
    from ray.util.metrics import Histogram

    return _instance(Histogram, METRICS[name], boundaries=SECONDS)


def set_gauge(name: str, value: float, tags: Mapping[str, str]) -> None:
    """Set this process's gauge of the list. Raises ValueError where a tag of it is missing."""
    from ray.util.metrics import Gauge

    _instance(Gauge, METRICS[name]).set(value, tags=dict(tags))


def of_iteration(iteration: int | None) -> str:
    """The tag of an iteration; empty for what is made once."""
    return "" if iteration is None else str(iteration)


def _instance(kind: Any, metric: Metric, **more: Any) -> Any:
    if metric.name not in _MADE:
        _MADE[metric.name] = kind(metric.name, description=metric.description, tag_keys=metric.tags, **more)
    return _MADE[metric.name]
