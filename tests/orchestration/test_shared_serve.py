"""`judge --serve` on a cluster where Ray Serve is up already, for somebody else."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from clusters import Cluster, free_ports, started
from services import Service, scripted

pytestmark = pytest.mark.timeout(600)
PAIR = {"instruction": "Name a fruit.", "response_a": "GOOD apple", "response_b": "brick"}
ANOTHER = """
import sys, ray
from ray import serve

@serve.deployment(ray_actor_options={"num_cpus": 0})
class Another:
    def __call__(self) -> str:
        return "still here"

ray.init(address=sys.argv[1], log_to_driver=False)
serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[2])})
serve.run(Another.bind(), name="another", route_prefix="/another")
"""


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    with started(tmp_path) as made:
        for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN"):
            monkeypatch.setenv(name, made.variables[name])
        yield made


def serve_another(cluster: Cluster, port: int) -> None:
    """An application of somebody else, whose command ends: Ray Serve and what it serves stay."""
    # Not in this process: Ray keeps the first token that it reads in one.
    line = [sys.executable, "-c", ANOTHER, cluster.address, str(port)]
    subprocess.run(line, env=cluster.variables, check=True, timeout=300)


def test_it_is_served_where_serve_is_and_ends_nothing_but_itself(cluster: Cluster, tmp_path: Path) -> None:
    (port,) = free_ports(1)
    serve_another(cluster, port)
    service = Service(tmp_path / "service", *scripted(p=[1.0]), "--ray.address", cluster.address)
    try:
        log = service.ready().log.read_text()
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=120) as client:
            assert f"scripted is served at http://127.0.0.1:{port}: " in log
            told = [line for line in log.splitlines() if str(service.port) in line]
            assert len(told) == 1, log
            assert f"listens at 127.0.0.1:{port} for all applications" in told[0]
            assert "The new HTTP config is ignored" not in log, "Serve says it too, and names neither"
            assert client.post("/judge", json=PAIR).json()["verdict"] == "A"
            assert client.get("/another").text == "still here"
            os.kill(service.process.pid, signal.SIGTERM)
            assert service.process.wait(120) == 143, service.log.read_text()
            deadline = time.monotonic() + 60
            while client.get("/health").status_code != 404:  # its own application ends
                assert time.monotonic() < deadline
                time.sleep(0.2)
            assert client.get("/another").text == "still here"
    finally:
        service.stop()
