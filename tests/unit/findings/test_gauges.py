"""What the driver gives to Ray of committed stages, against the recorded run's own tables."""

from __future__ import annotations

from collections.abc import Callable

from ray_app.findings.gauges import readings
from ray_app.findings.run_tables import RunTables
from ray_app.system.ray_metrics import METRICS


def test_every_figure_of_a_recorded_run(runs: Callable[[str], str]) -> None:
    lines = RunTables(runs("pairwise")).metrics()
    alarm = {"name": "refusals", "iteration": None, "value": 0.4}
    made = list(readings(lines, [alarm]))
    found = {(name, *sorted(tags.values())): value for name, value, tags in made}
    assert len(found) == len(made), "no two readings set the same series"
    (trained,) = [line["extra"] for line in lines if line["stage"] == "train_set"]
    assert found["ste_keep_rate", "1"] == trained["kept"] / trained["tried"]
    assert found["ste_pass_rate", "1"] == trained["pass_rate"]
    assert found["ste_alarms",] == 1
    assert found["ste_alarm", "", "refusals"] == 0.4
    pairs = next(line for line in lines if line["stage"] == "pairs")
    assert found["ste_stage_rows", "", "pairs"] == pairs["rows_out"]
    lost = sum(value for name, value, _ in made if name == "ste_quarantined")
    assert lost == sum(sum(line["quarantined"].values()) for line in lines)
    sets = {line["extra"]["set"] for line in lines if line["stage"] == "evaluation" and line["iteration"] == 1}
    assert {key[2] for key in found if key[0] == "ste_accuracy" and key[1] == "1"} == sets


def test_of_two_trainings_the_last_judge_is_measured(then_dpo: str) -> None:
    lines = RunTables(then_dpo).metrics()
    for line in lines:
        if line["stage"] == "dpo_evaluation" and line["extra"]["set"] == "validation":
            line["extra"]["headline"]["accuracy"]["value"] = 0.875
    made = list(readings(lines, [{"name": "refusals", "iteration": 1, "value": 0.4, "phase": "dpo"}]))
    found = {(name, *sorted(tags.values())): value for name, value, tags in made}
    assert len(found) == len(made)
    assert found["ste_accuracy", "1", "validation"] == 0.875
    assert found["ste_alarm", "1", "dpo_refusals"] == 0.4


def test_readings_are_in_the_list_with_its_tags(runs: Callable[[str], str]) -> None:
    lines = RunTables(runs("pairwise")).metrics()
    for line in lines:
        line["extra"]["device_time"] = {"devices": 4, "seconds": 10.0, "busy": 30.0, "idle": {"other": 10.0}}
    told = list(readings(lines, [{"name": "a", "iteration": 1, "value": 1}]))
    assert {value for name, value, _ in told if name == "ste_gpu_idle_share"} == {0.25}
    for name, value, tags in told:
        assert METRICS[name].kind == "gauge"
        assert {"run", *tags} == set(METRICS[name].tags), name
        assert isinstance(value, int | float)
