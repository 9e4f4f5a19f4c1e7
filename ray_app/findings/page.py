"""report.html: one self-contained file, readable without network, in light and dark, by mouse and keyboard.

Plotly's own bundle (from its Python package) lies in the page compressed, and the browser unpacks it
(DecompressionStream: every browser since 2023). All texts of the run are data, never markup: the script shows them as
text, so nothing a model wrote can act in the page.
"""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

import jinja2
from markupsafe import Markup

from ray_app.findings import judges, naming
from ray_app.findings.account import duration, learned_from, left_out, spent, thrown_away, where_time_went
from ray_app.findings.charts import charts
from ray_app.findings.naming import at, stage_name, where
from ray_app.findings.reading import fitting, judge_prompt, readable, totals
from ray_app.findings.run_tables import RunTables
from ray_app.findings.settings import AlarmSettings
from ray_app.findings.verdict import sentences, trusted
from ray_app.run import storage

REPORT = "report.html"
TEXTLESS = "texts_left_out"  # of run.json, in a copy that scripts/without_texts.py made
PARTS = [
    ("verdict", "Did it learn?"),
    ("alarms", "Can I trust it?"),
    ("figures", "Figures"),
    ("samples", "What did it learn from?"),
    ("lost", "What was thrown away?"),
    ("time", "Where did the time go?"),
    ("settings", "Settings"),
]


def write(
    tables: RunTables,
    alarms: Sequence[dict[str, Any]],
    defaults: Mapping[str, Any],
    *,
    output: str | None = None,
    other: RunTables | None = None,
    marks: Sequence[Mapping[str, Any]] = (),
) -> str:
    """Write the page of a run as it is now and return where it lies. `defaults`: the settings tree without values;
    `other`: a run whose settings stand beside; `marks`: a reviewer's, to go on with.
    """
    where = output or storage.join(tables.folder.uri, REPORT)
    storage.write_bytes_atomic(where, render(tables, alarms, defaults, other, marks).encode("utf-8", "replace"))
    return where


def render(
    tables: RunTables,
    alarms: Sequence[dict[str, Any]],
    defaults: Mapping[str, Any],
    other: RunTables | None = None,
    marks: Sequence[Mapping[str, Any]] = (),
    served: Sequence[str] = (),
) -> str:
    """The page as text. `served`: tables whose every row the server beside the page has."""
    metrics = naming.with_first_judge(tables.metrics(), tables.settings)
    shown, pairs = fitting(tables, readable(tables, alarms))
    data = {
        "run": tables.name,
        "begun": metrics[0]["finished"] if metrics else "",  # another run of this name keeps its own marks
        "charts": charts(metrics, _last_summaries(tables), _losses(tables)),
        "samples": shown,
        "pairs": pairs,
        "totals": totals(tables),
        "judge_prompt": judge_prompt(tables),
        "marks": list(marks),
        "served": list(served),
    }
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    return environment.from_string(_asset("page.html.j2")).render(
        name=tables.name,
        subtitle=subtitle_of(tables, metrics),
        parts=PARTS,
        verdict=sentences(metrics, alarms, second=len(tables.phases()) > 1),
        trusted=trusted(metrics, alarms),
        alarms=by_name(alarms),
        judges=judges.table(metrics, _costs(tables, metrics)),
        stages=[_stage(line) for line in metrics],
        learned=learned_from(metrics),
        thrown=thrown_away(metrics),
        time=where_time_went(metrics),
        spent=[{**row, "seconds": duration(row["seconds"])} for row in spent(metrics)],
        settings=setting_rows(tables.settings, defaults, other.settings if other else None),
        other=other.name if other else None,
        served=bool(served),
        versions=versions_of(tables.described),
        css=Markup(_asset("page.css")),
        js=Markup(_asset("page.js")),
        data=Markup(script_json(data)),
        plotly=Markup(_plotly()),
    )


def subtitle_of(tables: RunTables, metrics: Sequence[Mapping[str, Any]]) -> str:
    """What was trained, and how far the run is."""
    seed = (tables.settings.get("judge") or {}).get("model")
    told = f"seed model {seed}; " if seed else ""
    told += f"{len(metrics)} stages done, the last at {max((m['finished'] for m in metrics), default='?')}"
    return told + (". The texts of its data were taken out of this copy." if tables.described.get(TEXTLESS) else "")


def versions_of(described: Mapping[str, Any]) -> str:
    """What a run was made with, in words; what it did not record is said."""
    packages = ", ".join(f"{name} {number}" for name, number in (described.get("packages") or {}).items())
    made = {"version": described.get("version"), "revision": described.get("revision"), "packages": packages}
    return "Made with " + "; ".join(f"{name} {value or '(the run did not record it)'}" for name, value in made.items())


def _last_summaries(tables: RunTables) -> dict[str, Any]:
    """{set: summary.json} of the judge that goes on from the last evaluated iteration."""
    phase, last = tables.lasting()
    lines = phase.metrics() if last else []
    sets = [line["extra"]["set"] for line in lines if line["stage"] == "evaluation" and line["iteration"] == last]
    return {name: phase.summary(last, name) for name in dict.fromkeys(sets)}


def _losses(tables: RunTables) -> dict[int | str, Any]:
    """The points of every training, by its place on the axis of iterations."""
    found: dict[int | str, Any] = {}
    for phase in tables.phases():
        for i in phase.iterations():
            place = at({"stage": phase.folder.stage_name("training"), "iteration": i})
            if place is not None and (points := phase.training(i).get("metrics")):
                found[place] = points
    return found


def _costs(tables: RunTables, metrics: Sequence[Mapping[str, Any]]) -> dict[tuple[str, int, str, str], Any]:
    """The block `cost` of every summary, by the place of its evaluation."""
    return {place: tables.cost(*place) for place in map(judges.place_of, judges.evaluations(metrics))}


def by_name(alarms: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One entry an alarm, as it was in its last iteration, with all iterations that raised it and all its rows."""
    found: dict[str, dict[str, Any]] = {}
    for alarm in alarms:
        before = found.get(alarm["name"], {"where": [], "rows": []})
        place = where(alarm["iteration"], alarm.get("phase", ""))
        rows = [*before["rows"], *alarm["rows"]]
        found[alarm["name"]] = {**alarm, "where": [*before["where"], place], "rows": rows}
    return list(found.values())


def script_json(value: Any) -> str:
    """JSON that may stand inside a script element: no `<` in it can end the element or open a comment."""
    return json.dumps(value, ensure_ascii=True, allow_nan=False).replace("<", "\\u003c")


def setting_rows(
    here: Mapping[str, Any], defaults: Mapping[str, Any], other: Mapping[str, Any] | None
) -> list[dict[str, Any]]:
    """The settings that are not the defaults, here or in the other run, by their dotted names."""
    own, usual, their = flat(here), flat(defaults), flat(other or {})
    rows = []
    for name in sorted({*own, *their}):
        values = [tree.get(name) for tree in (own, usual, their if other is not None else own)]
        if values[0] != values[1] or values[2] != values[0]:
            shown = ["–" if value is None else str(value) for value in values]
            differs = other is not None and values[2] != values[0]
            rows.append({"name": name, "here": shown[0], "default": shown[1], "other": shown[2], "differs": differs})
    return rows


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{dotted name: value} of a settings tree."""
    found: dict[str, Any] = {}
    for name, value in tree.items():
        found |= flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) and value else {f"{prefix}{name}": value}
    return found


def _stage(line: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **line,
        "stage": stage_name(line),
        "seconds": duration(line["seconds"]),
        "left_out": left_out(line),
    }


def _asset(name: str) -> str:
    return (files("ray_app.findings") / name).read_text(encoding="utf-8")


def _plotly() -> str:
    script = (files("plotly") / "package_data" / "plotly.min.js").read_bytes()
    return base64.b64encode(gzip.compress(script, 9, mtime=0)).decode("ascii")


def limits_of(settings: Mapping[str, Any]) -> AlarmSettings:
    """The thresholds of a run; those of a run that knew no alarms are the defaults."""
    return AlarmSettings.model_validate(settings.get("alarms", {}))
