"""Training figures reach a node's metrics port as Ray metrics."""

from __future__ import annotations

import time
import urllib.request

from ray_app.train.trackers import RayMetrics


def test_gauges_are_exported_with_the_runs_name(cluster):
    import ray

    metrics = RayMetrics("metrics-test")
    metrics.log(3, {"loss": 1.25, "mfu": 0.5})
    node = ray.nodes()[0]
    address = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    lines: list[str] = []
    deadline = time.monotonic() + 300
    while len(lines) < 3 and time.monotonic() < deadline:
        time.sleep(1)
        text = urllib.request.urlopen(address, timeout=10).read().decode()
        lines = [line for line in text.splitlines() if "metrics-test" in line]
    values = {line.split("{")[0]: float(line.split()[-1]) for line in lines}
    assert values == {"ray_ste_train_loss": 1.25, "ray_ste_train_mfu": 0.5, "ray_ste_train_step": 3.0}
