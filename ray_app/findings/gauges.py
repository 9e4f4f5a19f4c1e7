"""What a run's committed stages show, as Ray metrics of its driver: rates, accuracies, lost rows, alarms."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ray_app.findings.naming import lasting
from ray_app.findings.set_results import measured
from ray_app.system.device_time import idle_share
from ray_app.system.ray_metrics import of_iteration, set_gauge

Line = Mapping[str, Any]
Reading = tuple[str, float, dict[str, str]]


def publish(run: str, metrics: Sequence[Line], alarms: Sequence[Line]) -> None:
    """Set every gauge. Ray serves them while the driver lives."""
    for name, value, tags in readings(metrics, alarms):
        set_gauge(name, value, {"run": run, **tags})


def readings(metrics: Sequence[Line], alarms: Sequence[Line]) -> Iterator[Reading]:
    """(gauge, value, tags without the run's) of lines of metrics.jsonl and rows of alarms.json. Pure."""
    for line in metrics:
        yield from _stage(line)
    for line in lasting(metrics):
        figure = measured(line["extra"].get("headline"))
        if line["stage"] == "evaluation" and figure:
            place = {"iteration": of_iteration(line["iteration"]), "set": str(line["extra"]["set"])}
            yield "ste_accuracy", figure["value"], place
    yield "ste_alarms", len(alarms), {}
    for alarm in alarms:
        named = "_".join(part for part in (alarm.get("phase"), str(alarm["name"])) if part)  # as stages are named
        tags = {"iteration": of_iteration(alarm["iteration"]), "alarm": named}
        yield "ste_alarm", alarm["value"], tags


def _stage(line: Line) -> Iterator[Reading]:
    extra, iteration = line["extra"], {"iteration": of_iteration(line["iteration"])}
    named = (line["stage"], extra.get("prompt"), extra.get("set"))
    place = {"stage": " ".join(str(part) for part in named if part), **iteration}
    yield "ste_stage_seconds", line["seconds"], place
    yield "ste_stage_rows", line["rows_out"], place
    for reason, count in line["quarantined"].items():
        yield "ste_quarantined", count, {**place, "reason": reason}
    share = idle_share([extra["device_time"]]) if "device_time" in extra else None
    if share is not None:
        yield "ste_gpu_idle_share", share, place
    for name in ("keep_rate", "pass_rate"):  # of a second training they say what the first has taught
        if line["stage"] == "train_set" and extra.get(name) is not None:
            yield f"ste_{name}", extra[name], iteration
