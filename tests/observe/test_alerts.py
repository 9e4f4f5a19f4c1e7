"""Each alert is raised by what it is for, and not by a run that goes well: Prometheus's own rule test says so."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from loop_runs import ROOT
from prometheus_tools import tool

STAGE = 'run="r",stage="judgments",iteration="1"'
WORK = 'run="r",work="iteration 1: judgments"'
# By alert: {series: its values, a minute apart} of a bad run, and of a good one.
ROWS = {f"ray_ste_rows_total{{{STAGE}}}": "0+100x60"}
CASES: dict[str, tuple[dict[str, str], dict[str, str]]] = {
    "SteKeepRateLow": (
        {'ray_ste_keep_rate{run="r",iteration="1"}': "0.2+0x60"},
        {'ray_ste_keep_rate{run="r",iteration="1"}': "0.9+0x60"},
    ),
    "SteUnparsedHigh": (
        {f"ray_ste_samples_total{{{STAGE}}}": "0+100x60", f"ray_ste_unparsed_total{{{STAGE}}}": "0+20x60"},
        {f"ray_ste_samples_total{{{STAGE}}}": "0+100x60", f"ray_ste_unparsed_total{{{STAGE}}}": "0+2x60"},
    ),
    "SteEngineStalled": (
        {f"ray_ste_units_left{{{WORK}}}": "5+0x60", f"ray_ste_tokens_made{{{WORK}}}": "700+0x60"},
        {f"ray_ste_units_left{{{WORK}}}": "5+0x60", f"ray_ste_tokens_made{{{WORK}}}": "700+9x60"},
    ),
    "SteIdleShareHigh": (
        {'ray_ste_in_flight{run="r",role="judge"}': "0+0x60"},
        {'ray_ste_in_flight{run="r",role="judge"}': "8+0x60"},
    ),
    "SteQuarantineHigh": (
        {**ROWS, f'ray_ste_failures_total{{{STAGE},reason="refused"}}': "0+10x60"},
        {**ROWS, f'ray_ste_failures_total{{{STAGE},reason="refused"}}': "0+1x60"},
    ),
    "SteAlarm": (
        {'ray_ste_alarm{run="r",iteration="1",alarm="refusals"}': "0.4+0x60"},
        {'ray_ste_alarms{run="r"}': "0"},
    ),
}


def alerts() -> dict[str, dict[str, Any]]:
    (group,) = yaml.safe_load((ROOT / "monitoring" / "rules.yml").read_text())["groups"]
    return {rule["alert"]: rule for rule in group["rules"]}


def test_every_alert_has_a_case() -> None:
    assert set(CASES) == set(alerts())


@pytest.mark.parametrize("bad", [True, False], ids=["bad", "good"])
@pytest.mark.parametrize("name", CASES)
def test_an_alert_is_raised_by_what_it_is_for(name: str, bad: bool, tmp_path: Path) -> None:
    shutil.copy(ROOT / "monitoring" / "rules.yml", tmp_path)
    series = CASES[name][0 if bad else 1]
    expression = f'count(ALERTS{{alertname="{name}",alertstate="firing"}})'
    expected = [{"labels": "{}", "value": 1}] if bad else []
    case = {
        "interval": "1m",
        "input_series": [{"series": key, "values": values} for key, values in series.items()],
        "promql_expr_test": [{"expr": expression, "eval_time": "50m", "exp_samples": expected}],
    }
    test = {"rule_files": ["rules.yml"], "evaluation_interval": "1m", "tests": [case]}
    (tmp_path / "test.yml").write_text(yaml.safe_dump(test))
    done = subprocess.run(
        [tool("promtool"), "test", "rules", str(tmp_path / "test.yml")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
