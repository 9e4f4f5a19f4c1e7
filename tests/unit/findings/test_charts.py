"""Figures of the report that stand beside accuracy."""

from __future__ import annotations

from typing import Any

from ray_app.findings.charts import accuracy, controls, devices


def evaluated(iteration: int, **figures: float) -> dict[str, Any]:
    found = {name: {"value": value, "n": 9, "low": None, "high": None} for name, value in figures.items()}
    return {"stage": "evaluation", "iteration": iteration, "extra": {"set": "heldout", "headline": found}}


def test_controls_show_what_was_measured() -> None:
    lines = [evaluated(i, accuracy=0.9, accuracy_least_similar=0.8, accuracy_most_similar=0.5) for i in (0, 1)]
    made = controls(lines)
    points = {trace["name"]: (trace["x"], trace["y"]) for trace in made["data"]}
    assert points == {
        "accuracy, least similar third": ([0, 1], [80, 80]),
        "accuracy, most similar third": ([0, 1], [50, 50]),
    }
    assert "Thirds of the pairs" in made["note"]
    assert "Thirds" not in controls([evaluated(0, mirrored_accuracy=0.5)])["note"]


def test_other_judges_are_markers_at_the_seeds_place() -> None:
    first = {**evaluated(0, accuracy=0.8), "stage": "first_judge_evaluation"}
    first["extra"]["judge"] = "mixtral"
    made = accuracy([evaluated(0, accuracy=0.5), evaluated(1, accuracy=0.7), first])
    (marker,) = [trace for trace in made["data"] if trace["mode"] == "markers"]
    assert (marker["name"], marker["x"], marker["y"]) == ("heldout: the first judge, mixtral", [0], [80])
    assert marker["colour"] == made["data"][0]["colour"]
    assert made["note"].endswith("At 0 also: ◆ the first judge, mixtral.")


def test_the_time_of_the_devices_is_stacked_by_cause() -> None:
    def told(iteration: int, busy: float, **idle: float) -> dict[str, Any]:
        account = {"devices": 2, "seconds": 10.0, "busy": busy, "idle": idle}
        return {"stage": "training", "iteration": iteration, "extra": {"device_time": account}}

    made = devices([told(1, 12.0, other=8.0), told(1, 15.0, other=4.0, export=1.0), told(2, 20.0)])
    bars = {trace["name"]: dict(zip(trace["x"], trace["y"], strict=True)) for trace in made["data"]}
    assert bars == {"at work": {"1": 27, "2": 20}, "idle: other": {"1": 12}, "idle: export": {"1": 1}}
    assert devices([{"stage": "pairs", "iteration": None, "extra": {}}])["data"] == []
