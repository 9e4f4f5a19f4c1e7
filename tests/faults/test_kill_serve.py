"""kill -9 of `judge --serve` on a cluster that others use: Ray Serve keeps its application, whose engines are gone; the
same command takes its place. That of a living command is left alone.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

import httpx
import pytest
from clusters import started
from services import Service, scripted

pytestmark = [pytest.mark.matrix, pytest.mark.timeout(600)]
PAIR = {"instruction": "Name a fruit.", "response_a": "GOOD apple", "response_b": "brick"}


def test_the_same_command_replaces_a_service_that_was_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with started(tmp_path) as cluster:
        for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN"):
            monkeypatch.setenv(name, cluster.variables[name])
        options = [*scripted(p=[1.0]), "--ray.address", cluster.address]
        killed = Service(tmp_path / "killed", *options).ready()
        assert killed.judge(**PAIR).json()["verdict"] == "A"
        code, log = Service(tmp_path / "refused", *options, port=killed.port).ended()
        assert code == 1
        assert "the application 'judge' is served on this cluster already" in log
        assert killed.judge(**PAIR).json()["verdict"] == "A", "the living one goes on"
        os.kill(killed.process.pid, signal.SIGKILL)
        killed.process.wait(60)
        again = Service(tmp_path / "again", *options, port=killed.port).ready()
        assert again.log.read_text().count("a command that is gone has no engine any more: it is replaced") == 1
        assert again.judge(**PAIR).json()["verdict"] == "A"
        assert again.client.get("/health").json()["answering"] == 1
        os.kill(again.process.pid, signal.SIGTERM)
        assert again.process.wait(120) == 143, again.log.read_text()
        with pytest.raises(httpx.TransportError):  # the killed one had started Ray Serve, and this one ends it
            again.client.get("/health")
        assert "EngineActor" not in cluster.ours()
