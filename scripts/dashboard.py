"""Writes monitoring/: the Grafana dashboard in the form of Ray's own, and the alert rules for Prometheus.

    python scripts/dashboard.py

Panels and alerts are the lists of dashboard_panels.py; Ray's own factory lays the panels out, as it does for the
dashboards that it brings. Thresholds are the defaults of the settings `alarms`. A test holds every metric named here to
ray_app/system/ray_metrics.py, and `make observe` every query to a live run.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml
from dashboard_panels import ALERTS, BY, ROWS
from ray.dashboard.modules.metrics.dashboards.common import DashboardConfig, Panel, Row, Target
from ray.dashboard.modules.metrics.grafana_dashboard_factory import _generate_grafana_panels

HOME = Path(__file__).resolve().parents[1] / "monitoring"
DASHBOARD, RULES = HOME / "self_taught_evaluators.json", HOME / "rules.yml"


def dashboard() -> dict[str, Any]:
    """The dashboard as Grafana reads it."""
    rows, number = [], 0
    for title, panels in ROWS.items():
        made = []
        for shown in panels:
            number += 1
            queries = [Target(_template(query), legend) for legend, query in shown.queries.items()]
            look = {"fill": 0, "stack": False, "linewidth": 2}
            made.append(Panel(shown.title, shown.description, number, shown.unit, queries, **look))
        rows.append(Row(title, 1000 + len(rows), made))
    config = DashboardConfig("SELF_TAUGHT_EVALUATORS", "selfTaughtEvaluators", [], "", rows=rows)
    return {
        "title": "Self-Taught Evaluators",
        "uid": config.default_uid,
        "version": 1,
        "schemaVersion": 27,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "tags": ["ray", "self-taught-evaluators"],
        "templating": {"list": variables()},
        "panels": _generate_grafana_panels(config, [], ""),
    }


def variables() -> list[dict[str, Any]]:
    """What the reader picks: the data source, the window of rates, Ray's session, the runs."""
    windows = [{"selected": text == "1m", "text": text, "value": text} for text in ("30s", "1m", "5m", "15m")]
    source = {"name": "datasource", "type": "datasource", "query": "prometheus", "refresh": 1, "hide": 2}
    window = {"name": "window", "label": "Window", "type": "interval", "options": windows, "current": windows[1]}
    window |= {"query": "30s,1m,5m,15m", "description": "over which rates are averaged"}
    return [source, window, *(_labels(name) for name in ("SessionName", "run"))]


def _labels(name: str) -> dict[str, Any]:
    query = f"label_values(ray_ste_alarms, {name})"
    return {
        "name": name,
        "type": "query",
        "datasource": "${datasource}",
        "definition": query,
        "query": {"query": query, "refId": "StandardVariableQuery"},
        "refresh": 2,
        "includeAll": True,
        "multi": True,
        "allValue": ".*",
        "sort": 2,
        "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
    }


def _template(query: str) -> str:
    """A query with the reader's choices; braces as Ray's factory, which formats it, wants them. Training is tagged with
    the run's name and iteration.
    """
    query = query.replace("(BY", f"({BY}")
    runs = {"{F}": 'run=~"$run"', "{T}": 'run=~"($run)(-iter-[0-9]+)?"'}
    for mark, chosen in runs.items():
        query = query.replace(mark, '{{SessionName=~"$SessionName",' + chosen + "}}")
    return query


def rules() -> dict[str, Any]:
    """The alert rules as Prometheus reads them."""
    made = [
        {
            "alert": name,
            "expr": expression,
            "for": duration,
            "labels": {"severity": "warning"},
            "annotations": {"summary": advice, "description": "run {{ $labels.run }}: {{ $value }}"},
        }
        for name, expression, duration, advice in ALERTS
    ]
    return {"groups": [{"name": "self-taught-evaluators", "rules": made}]}


def texts() -> dict[Path, str]:
    """What the files hold."""
    head = "# Made by scripts/dashboard.py: change its list of alerts, not this file.\n"
    return {
        DASHBOARD: json.dumps(dashboard(), indent=1) + "\n",
        RULES: head + yaml.safe_dump(rules(), sort_keys=False, width=120),
    }


if __name__ == "__main__":
    HOME.mkdir(exist_ok=True)
    for file, text in texts().items():
        file.write_text(text, encoding="utf-8")
        print(f"{file.relative_to(HOME.parent)}: {len(text)} characters")
