"""What a run says of itself while it goes on: alarms after every iteration, the report at its end."""

from __future__ import annotations

import logging
from typing import Any

from ray_app.engine.settings import EngineSettings
from ray_app.errors import RunError, first_line
from ray_app.findings import gather, gauges, page
from ray_app.findings.naming import where
from ray_app.findings.run_tables import RunTables
from ray_app.findings.settings import AlarmSettings
from ray_app.loop.config import IterateSettings
from ray_app.loop.data_settings import InstructionSettings
from ray_app.loop.stages.pairs import STAGE as PAIRS
from ray_app.loop.step import Step
from ray_app.loop.then_dpo import ThenDpoSettings

log = logging.getLogger(__name__)


def look_at(settings: IterateSettings, uri: str, made: list[Step], to_come: list[Step]) -> None:
    """Alarms of what was just committed, and its figures for the dashboard: those of an alarm that ends the run too.
    Raises RunError as `look_for_alarms` does.
    """
    try:
        for step in {(step.stage, step.iteration): step for step in made}.values():  # sets together: once
            look_for_alarms(settings, uri, step, to_come)
    finally:
        measure(settings, uri)


def look_for_alarms(settings: IterateSettings, uri: str, step: Step, to_come: list[Step]) -> None:
    """After pairs, and after an iteration's last stage: write alarms.json, and log what is new. Raises RunError where
    `alarms.on_alarm` is stop, there is any, and something is left to do (then pairs do not stream into judging, so that
    a stop comes before judging is paid for).
    """
    ended = step.iteration is not None and all(other.iteration != step.iteration for other in to_come)
    if step.stage != PAIRS and not ended:
        return
    try:
        found = gather.update(uri, settings.alarms, [step.iteration])
    except Exception:  # days of work are not to end because a figure could not be made
        log.exception("alarms could not be looked for")
        return
    for alarm in found:
        place = "" if alarm.iteration is None else f", {where(alarm.iteration, alarm.phase)}"
        log.warning("alarm %s%s: %s. Try: %s", alarm.name, place, alarm.message, alarm.advice)
    if settings.alarms.on_alarm == "stop" and to_come:
        _stop_by([alarm.name for alarm in found])


def measure(settings: IterateSettings, uri: str) -> None:
    """Set the driver's Ray metrics to what is committed: the stages of every call, and alarms.json."""
    try:
        tables = RunTables(uri)
        gauges.publish(settings.name, tables.metrics(), tables.alarms())
    except Exception:  # a dashboard is worth no run
        log.exception("the run's figures could not be given to Ray")


def stop_by_standing_alarms(settings: IterateSettings, uri: str) -> None:
    """Raises RunError where `alarms.on_alarm` is stop and what is done raises an alarm, by the thresholds as they are
    now: a run that was stopped does not go on because it is asked again.
    """
    if settings.alarms.on_alarm == "stop":
        _stop_by([alarm["name"] for alarm in gather.look(RunTables(uri), settings.alarms)])


def _stop_by(names: list[str]) -> None:
    if names:
        raise RunError(
            f"stopped by alarm: {', '.join(dict.fromkeys(names))} (alarms.on_alarm is stop). What is done stays; the "
            "same command goes on with other thresholds, or with --alarms.on_alarm warn"
        )


def write_report(uri: str, limits: AlarmSettings | None = None) -> str:
    """Write report.html and alarms.json of a whole run, and return where the report lies."""
    tables = RunTables(uri)
    alarms = gather.look(tables, limits or page.limits_of(tables.settings))
    gather.write(uri, alarms)
    return page.write(tables, alarms, default_settings())


def try_report(uri: str, settings: IterateSettings) -> str:
    """The line that says where the report lies, or why there is none: a page never costs a run its exit code."""
    try:
        return f"report: {write_report(uri, settings.alarms)}"
    except Exception as fault:
        log.exception("the report could not be written")
        return f"no report: {first_line(fault)} (python -m ray_app.report {uri} tries again)"


def default_settings() -> dict[str, Any]:
    """The settings tree as it is where nothing is set. Not an instance: that would read the environment."""
    required: dict[str, Any] = {
        "generator": EngineSettings(model=""),
        "judge": EngineSettings(model=""),
        "first_judge": EngineSettings(model=""),  # by default there is none; where there is, its own defaults count
        "then_dpo": ThenDpoSettings(),  # likewise
        "instructions": InstructionSettings(source=""),
    }
    values: dict[str, Any] = {
        name: required.get(name) or (None if field.is_required() else field.get_default())
        for name, field in IterateSettings.model_fields.items()
    }
    return {
        name: value.model_dump(mode="json") if hasattr(value, "model_dump") else value for name, value in values.items()
    }
