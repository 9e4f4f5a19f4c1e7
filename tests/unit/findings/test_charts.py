"""Figures of the report that stand beside accuracy."""

from __future__ import annotations

from typing import Any

from ray_app.findings.charts import controls


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
