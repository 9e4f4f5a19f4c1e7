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

from ray_app.findings.account import duration, learned_from, left_out, spent
from ray_app.findings.charts import charts
from ray_app.findings.reading import pairs_shown, readable
from ray_app.findings.run_tables import RunTables
from ray_app.findings.settings import AlarmSettings
from ray_app.findings.verdict import sentences
from ray_app.run import storage

REPORT = "report.html"
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
    metrics, iterations = tables.metrics(), tables.iterations()
    sets = [line["extra"]["set"] for line in metrics if line["stage"] == "evaluation" and line["iteration"]]
    last = tables.last_evaluated()
    summaries = {name: tables.summary(last, name) for name in dict.fromkeys(sets)} if last else {}
    losses = {i: found for i in iterations if (found := tables.training(i).get("metrics"))}
    shown = readable(tables, alarms)
    data = {
        "run": tables.name,
        "charts": charts(metrics, summaries, losses),
        "samples": shown,
        "pairs": pairs_shown(tables, shown),
        "marks": list(marks),
        "served": list(served),
    }
    described = tables.described
    packages = ", ".join(f"{name} {version}" for name, version in described.get("packages", {}).items())
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    return environment.from_string(_asset("page.html.j2")).render(
        name=tables.name,
        subtitle=f"{len(metrics)} stages done, the last at {max((m['finished'] for m in metrics), default='?')}",
        parts=PARTS,
        verdict=[*([OF_SFT] if len(tables.phases()) > 1 else []), *sentences(metrics, alarms)],
        alarms=by_name(alarms),
        stages=[_stage(line) for line in metrics],
        learned=learned_from(metrics),
        spent=[{**row, "seconds": duration(row["seconds"])} for row in spent(metrics)],
        settings=setting_rows(tables.settings, defaults, other.settings if other else None),
        other=other.name if other else None,
        versions=f"version {described.get('version')}, revision {described.get('revision')}; {packages}",
        css=Markup(_asset("page.css")),
        js=Markup(_asset("page.js")),
        data=Markup(script_json(data)),
        plotly=Markup(_plotly()),
    )


OF_SFT = (
    "What this page says of judges is of the first training of each iteration (SFT). The judge that goes on is that of "
    "the second (DPO), which no alarm looks at: its figures are in the run's table, and in iter_NN/dpo/evaluation."
)


def by_name(alarms: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One entry an alarm, as it was in its last iteration, with all iterations that raised it and all its rows."""
    found: dict[str, dict[str, Any]] = {}
    for alarm in alarms:
        before = found.get(alarm["name"], {"where": [], "rows": []})
        where = "pairs" if alarm["iteration"] is None else f"iteration {alarm['iteration']}"
        rows = [*before["rows"], *alarm["rows"]]
        found[alarm["name"]] = {**alarm, "where": [*before["where"], where], "rows": rows}
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
    named = f" {line['extra']['set']}" if "set" in line["extra"] else ""
    return {
        **line,
        "stage": line["stage"].replace("_", " ") + named,
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
