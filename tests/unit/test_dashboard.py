"""The dashboard and the alerts: what is committed is what the script makes, of metrics that the code has."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from ray_app.findings.settings import AlarmSettings
from ray_app.system.ray_metrics import METRICS

ROOT = Path(__file__).resolve().parents[2]
MONITORING = ROOT / "monitoring"
EXPORTED = {metric.exported: metric for metric in METRICS.values()}


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    for name in ("dashboard", "dashboard_panels"):
        sys.modules.pop(name, None)
    import dashboard  # type: ignore[import-not-found]

    return dashboard


def expressions() -> list[str]:
    board = json.loads((MONITORING / "self_taught_evaluators.json").read_text())
    (group,) = yaml.safe_load((MONITORING / "rules.yml").read_text())["groups"]
    shown = [target["expr"] for panel in board["panels"] for target in panel.get("targets", [])]
    return [*shown, *(rule["expr"] for rule in group["rules"])]


def test_the_files_are_what_the_script_makes(script: ModuleType) -> None:
    for file, text in script.texts().items():
        assert file.read_text(encoding="utf-8") == text, f"{file.name}: run python scripts/dashboard.py"


def test_every_metric_exists_and_has_the_labels(script: ModuleType) -> None:
    assert len(expressions()) > 25
    for expression in expressions():
        names = set(re.findall(r"\bray_ste_\w+", expression))
        assert names
        metrics = [EXPORTED[re.sub("_bucket$", "", name)] for name in names]
        (labels,) = set(re.findall(r"by \(([^)]*)\)", expression))
        common = set.intersection(*(set(metric.tags) for metric in metrics)) | {"le"}
        assert {label.strip() for label in labels.split(",")} <= common, expression


def test_every_metric_is_shown() -> None:
    shown = " ".join(expressions())
    assert [name for name in EXPORTED if name not in shown and name != "ray_ste_train_step"] == []


def test_thresholds_are_those_of_the_alarms() -> None:
    (group,) = yaml.safe_load((MONITORING / "rules.yml").read_text())["groups"]
    ends = {rule["alert"]: re.split("[<>] ", rule["expr"])[-1] for rule in group["rules"]}
    assert float(ends["SteKeepRateLow"]) == AlarmSettings().keep_rate
    assert float(ends["SteUnparsedHigh"]) == AlarmSettings().unparsed


def test_the_page_of_metrics_names_them_all() -> None:
    page = (ROOT / "docs" / "dashboard.md").read_text(encoding="utf-8")
    assert [name for name in EXPORTED if f"`{name}`" not in page] == []
