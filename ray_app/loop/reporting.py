"""What a run says of itself while it goes on: alarms after every iteration, the report at its end."""

from __future__ import annotations

import logging
from typing import Any

from ray_app.engine.settings import EngineSettings
from ray_app.errors import RunError
from ray_app.findings import gather, page
from ray_app.findings.run_tables import RunTables
from ray_app.loop.config import InstructionSettings, IterateSettings
from ray_app.loop.stages.pairs import STAGE as PAIRS
from ray_app.loop.steps import Step

log = logging.getLogger(__name__)


def look_for_alarms(settings: IterateSettings, uri: str, step: Step, to_come: list[Step]) -> None:
    """After pairs, before their judging is paid for, and after an iteration's last stage: write alarms.json, and log
    what is new. Raises RunError where `alarms.on_alarm` is stop and there is any.
    """
    ended = step.iteration is not None and all(other.iteration != step.iteration for other in to_come)
    if step.stage != PAIRS and not ended:
        return
    found = gather.update(uri, settings.alarms, [step.iteration])
    for alarm in found:
        where = "" if alarm.iteration is None else f", iteration {alarm.iteration}"
        log.warning("alarm %s%s: %s. Try: %s", alarm.name, where, alarm.message, alarm.advice)
    if found and settings.alarms.on_alarm == "stop":
        names = ", ".join(alarm.name for alarm in found)
        raise RunError(
            f"stopped by alarm: {names} (alarms.on_alarm is stop). What is done stays; the same command with "
            "--alarms.on_alarm warn goes on"
        )


def write_report(uri: str) -> str:
    """Write report.html of a run with the alarms that were found, and return where it lies."""
    tables = RunTables(uri)
    return page.write(tables, gather.look(tables, page.limits_of(tables.settings)), default_settings())


def default_settings() -> dict[str, Any]:
    """The settings tree as it is where nothing is set. Not an instance: that would read the environment."""
    required: dict[str, Any] = {
        "generator": EngineSettings(model=""),
        "judge": EngineSettings(model=""),
        "instructions": InstructionSettings(source=""),
    }
    values: dict[str, Any] = {
        name: required.get(name) or (None if field.is_required() else field.get_default())
        for name, field in IterateSettings.model_fields.items()
    }
    return {
        name: value.model_dump(mode="json") if hasattr(value, "model_dump") else value for name, value in values.items()
    }
