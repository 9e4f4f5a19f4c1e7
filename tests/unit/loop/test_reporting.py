"""When alarms are looked for, what they say in the log, and what stops a run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ray_app.base.schema import PAIRS
from ray_app.errors import RunError
from ray_app.findings import page
from ray_app.findings.settings import AlarmSettings
from ray_app.loop.reporting import look_for_alarms, stop_by_standing_alarms, try_report
from ray_app.run.folder import RunFolder
from ray_app.run.storage import write_json_atomic, write_parquet_atomic

Write = Callable[..., Any]


def step(stage: str, iteration: int | None) -> Any:
    return SimpleNamespace(stage=stage, iteration=iteration)


@pytest.fixture
def run(tmp_path: Path) -> str:
    """A run whose pairs are full of meta-talk."""
    import pyarrow as pa

    write_json_atomic(str(tmp_path / "run.json"), {"settings": {}})
    rows = [{"pair_id": str(i), "chosen": f"Answer {i}.", "rejected": "I'm ready to help."} for i in range(30)]
    whole = [{name: row.get(name, "") for name in PAIRS.names} for row in rows]
    write_parquet_atomic(
        pa.Table.from_pylist(whole), f"{RunFolder(str(tmp_path)).stage_dir('pairs')}/shard-00000.parquet"
    )
    return str(tmp_path)


def settings(**alarms: Any) -> Any:
    return SimpleNamespace(alarms=AlarmSettings(**alarms))


def test_pairs_are_looked_at_before_their_judging_is_paid(run: str, caplog: pytest.LogCaptureFixture) -> None:
    look_for_alarms(settings(), run, step("pairs", None), [step("judgments", 1)])
    assert "alarm meta_talk: 100% of the rejected responses" in caplog.text
    written = json.loads((Path(run) / "alarms.json").read_text())["alarms"]
    assert {"meta_talk", "shortcut_length"} == {alarm["name"] for alarm in written}
    assert len(next(a for a in written if a["name"] == "meta_talk")["rows"]) == 20


def test_stop_ends_the_run_and_says_how_it_goes_on(run: str) -> None:
    look_for_alarms(settings(on_alarm="stop"), run, step("pairs", None), [])  # nothing is left to stop
    with pytest.raises(RunError, match=r"stopped by alarm: .*meta_talk.*with --alarms\.on_alarm warn"):
        look_for_alarms(settings(on_alarm="stop"), run, step("pairs", None), [step("judgments", 1)])
    look_for_alarms(settings(on_alarm="stop", meta_talk=1.0, longer=1.0), run, step("pairs", None), [])


def test_a_stopped_run_stays_stopped_until_its_thresholds_say_otherwise(run: str) -> None:
    with pytest.raises(RunError, match=r"stopped by alarm: .*meta_talk"):
        stop_by_standing_alarms(settings(on_alarm="stop"), run)
    stop_by_standing_alarms(settings(on_alarm="stop", meta_talk=1.0, longer=1.0), run)
    stop_by_standing_alarms(settings(), run)


def test_alarms_that_cannot_be_looked_for_cost_no_run(run: str, caplog: pytest.LogCaptureFixture) -> None:
    (Path(run) / "pairs" / "shard-00001.parquet").write_text("no Parquet")
    look_for_alarms(settings(on_alarm="stop"), run, step("pairs", None), [])
    assert "alarms could not be looked for" in caplog.text


def test_a_page_that_fails_costs_no_run(
    run: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert try_report(run, settings()) == f"report: {run}/report.html"

    def fails(*_: Any) -> str:
        raise OSError("disk full")

    monkeypatch.setattr(page, "render", fails)
    assert try_report(run, settings()).startswith("no report: disk full (python -m ray_app.report")
    assert "the report could not be written" in caplog.text


def test_an_iteration_is_looked_at_at_its_end(run: str) -> None:
    look_for_alarms(settings(), run, step("training", 1), [step("evaluation", 1)])
    assert not (Path(run) / "alarms.json").exists()
    look_for_alarms(settings(), run, step("evaluation", 1), [step("judgments", 2)])
    assert json.loads((Path(run) / "alarms.json").read_text()) == {"alarms": []}
