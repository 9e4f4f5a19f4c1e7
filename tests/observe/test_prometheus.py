"""Prometheus on a live job: every query of the dashboard and of the alerts has rows, and the dashboard shows how far
the job is.

`make observe` runs it, with Debian's Prometheus; it is no part of `make test`.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from clusters import Cluster, free_ports, started
from loop_runs import ROOT, Loop, scripted
from prometheus_tools import tool
from recorded import HOME as RECORDED
from recorded import TRAINING

MONITORING = ROOT / "monitoring"
PATIENCE_S = 480
pytestmark = pytest.mark.timeout(2400)
EVALUATED = "the average of 12, 18 and 27"  # of an instruction of the evaluation set: its row is held back
# What a run without GPUs does not have is given by a process of its own, through the same code.
ON_GPUS = """
import sys, time
from pathlib import Path
import ray
from ray_app.findings.gauges import publish
from ray_app.train.trackers import RayMetrics
ray.init(address=sys.argv[1], log_to_driver=False)
line = {"stage": "pairs", "iteration": None, "seconds": 1.0, "rows_out": 1, "quarantined": {}}
publish("observed", [{**line, "extra": {"device_time": {"devices": 2, "seconds": 10.0, "busy": 15.0, "idle": {}}}}], [])
RayMetrics("observed-iter-01").log(1, {"mfu": 0.5})
while not Path(sys.argv[2]).exists():
    time.sleep(0.1)
"""


def metrics_in(expression: str) -> set[str]:
    return set(re.findall(r"\bray_ste_\w+", expression))


class Prometheus:
    """A server that scrapes one cluster, with the configuration that the documentation names."""

    def __init__(self, folder: Path, discovery: Path) -> None:
        (port,) = free_ports(1)
        config = yaml.safe_load((MONITORING / "prometheus.yml").read_text())
        config["global"] = dict.fromkeys(config["global"], "1s")
        config["scrape_configs"][0]["file_sd_configs"][0]["files"] = [str(discovery)]
        shutil.copy(MONITORING / "rules.yml", folder)
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        subprocess.run([tool("promtool"), "check", "config", str(folder / "prometheus.yml")], check=True)
        command = [tool("prometheus"), f"--config.file={folder / 'prometheus.yml'}"]
        command += [f"--web.listen-address=127.0.0.1:{port}", f"--storage.tsdb.path={folder / 'tsdb'}"]
        self.log, self.url = folder / "prometheus.log", f"http://127.0.0.1:{port}/api/v1"
        self.started = time.time()
        with open(self.log, "w") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)

    def ask(self, what: str, **query: Any) -> Any:
        url = f"{self.url}/{what}?{urllib.parse.urlencode(query)}"
        try:
            with urllib.request.urlopen(url, timeout=30) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as fault:
            raise AssertionError(f"{query}: {fault.read().decode()}") from fault

    def rows(self, expression: str) -> list[dict[str, Any]]:
        """Series that had a number at any time since the server started."""
        found = self.ask("query_range", query=expression, start=self.started, end=time.time(), step=1)["result"]
        return [series for series in found if any(value != "NaN" for _, value in series["values"])]

    def end(self) -> None:
        self.process.terminate()
        self.process.wait(60)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with started(tmp_path_factory.mktemp("cluster")) as made:
        yield made


@pytest.fixture(scope="module")
def prometheus(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    server = Prometheus(tmp_path_factory.mktemp("prometheus"), cluster.scratch / "prom_metrics_service_discovery.json")
    until("Prometheus answers", lambda: answers(server))
    yield server
    server.end()


def answers(server: Prometheus) -> bool:
    assert server.process.poll() is None, server.log.read_text()
    try:
        return bool(server.ask("query", query="vector(1)"))
    except OSError:
        return False


def until(what: str, reached: Callable[[], Any], why: Callable[[], str] = lambda: "") -> Any:
    deadline = time.monotonic() + PATIENCE_S
    while not (found := reached()):
        assert time.monotonic() < deadline, f"never: {what}\n{why()}"
        time.sleep(0.5)
    return found


@pytest.fixture(scope="module")
def job(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A job of one iteration whose last evaluation is held back, so that its driver and its engines live."""
    folder = tmp_path_factory.mktemp("run")
    go = folder / "go"
    go.touch()
    slow = {"delay_s": 0.4, "words": [40]}
    judge = scripted(str(RECORDED / "tiny_model"), **slow, p=[0.9, 0.5], unparsed=0.3, hold=EVALUATED, until=str(go))
    settings: dict[str, Any] = {
        "name": "observed",
        "iterations": 1,
        "limit": 24,
        "generator": scripted(**slow, refuse=0.1),
        "judge": judge,
        "judging": {"samples": 4},
        "train": {**TRAINING, "max_steps": 8},
        "alarms": {"min_rows": 1, "unparsed": 0.05},
    }
    loop = Loop(folder, settings)
    submitted = cluster.submit(loop, "observed", how=("--no-wait",))
    assert submitted.code == 0, submitted.output + submitted.errors
    command = [sys.executable, "-c", ON_GPUS, cluster.address, str(go)]

    def told() -> str:
        return cluster.job("logs", "observed").output[-3000:]

    until("the seed is evaluated", (loop.run / "iter_00/evaluation/validation/stage.json").exists, told)
    go.unlink()
    beside = subprocess.Popen(command, env={**cluster.variables, "PYTHONPATH": str(cluster.code)})
    try:
        until("the training is done", (loop.run / "iter_01/training/stage.json").exists, told)
        yield "observed"
        go.touch()
        assert "succeeded" in cluster.finished("observed").lower(), told()
        assert "finished successfully" in cluster.about("observed")["message"]
        assert beside.wait(60) == 0
    finally:
        go.touch()
        beside.kill()


def shown() -> list[tuple[str, str]]:
    """(panel, query) of the dashboard, as Grafana asks them where the reader picks all."""
    board = json.loads((MONITORING / "self_taught_evaluators.json").read_text())
    panels = [panel for panel in board["panels"] if panel["type"] != "row"]
    return [(panel["title"], target["expr"]) for panel in panels for target in panel["targets"]]


def filled(expression: str) -> str:
    return expression.replace("$SessionName", ".*").replace("$run", ".*").replace("$window", "30s")


def alerts() -> list[dict[str, Any]]:
    return [
        rule for group in yaml.safe_load((MONITORING / "rules.yml").read_text())["groups"] for rule in group["rules"]
    ]


def test_every_panel_has_rows(prometheus: Prometheus, job: str) -> None:
    asked = shown()
    assert len(asked) > 20
    for title, expression in asked:
        until(f"{title} has rows: {expression}", partial(prometheus.rows, filled(expression)))


def test_every_alert_is_evaluated_on_series_that_exist(prometheus: Prometheus, job: str) -> None:
    for rule in alerts():
        for metric in metrics_in(rule["expr"]):
            until(f"{rule['alert']}: {metric} has series", partial(prometheus.rows, metric))
        prometheus.ask("query", query=rule["expr"])
    groups = until("the rules are evaluated", lambda: evaluated(prometheus))
    assert {rule["name"] for rule in groups} == {rule["alert"] for rule in alerts()}
    assert [(rule["name"], rule["lastError"]) for rule in groups if rule["health"] != "ok"] == []
    firing = until("an alarm is firing", lambda: names_of(prometheus, "firing"))
    assert "SteAlarm" in firing


def evaluated(prometheus: Prometheus) -> list[dict[str, Any]]:
    rules = [rule for group in prometheus.ask("rules")["groups"] for rule in group["rules"]]
    rules = [{"lastError": "", **rule} for rule in rules]
    return [] if any(rule["health"] == "unknown" for rule in rules) else rules


def names_of(prometheus: Prometheus, state: str) -> set[str]:
    return {alert["labels"]["alertname"] for alert in prometheus.ask("alerts")["alerts"] if alert["state"] == state}


def test_the_dashboard_shows_how_far_the_job_is(cluster: Cluster, job: str) -> None:
    line = r"iteration 1: evaluation.*: \d+ of \d+ rows, [\d,]+ tokens"
    until("its line", lambda: re.search(line, cluster.about(job)["message"]), lambda: cluster.about(job)["message"])
    assert cluster.about(job)["status"] == "RUNNING"
