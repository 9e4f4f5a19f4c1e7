"""Whether nodes may still come, what a local Ray is started with, and whose code its workers import."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ray._private.parameter import RayParams
from ray._private.ray_constants import DEFAULT_DASHBOARD_AGENT_LISTEN_PORT
from ray.core.generated.common_pb2 import JobConfig

from ray_app.errors import RunError
from ray_app.system import cluster
from ray_app.system.cluster import _JobOfThisCode, _lean_node, may_grow, python_path
from ray_app.system.cluster_settings import RaySettings

HEAD: dict[str, Any] = {"Alive": True, "Labels": {"ray.io/node-id": "1"}}
LAUNCHED: dict[str, Any] = {"Alive": True, "Labels": {"ray.io/node-id": "2", "ray.io/node-group": "head"}}


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        ([HEAD], False),
        ([HEAD, LAUNCHED], True),
        ([HEAD, {**LAUNCHED, "Alive": False}], False),
        ([{"Alive": True}], False),
    ],
)
def test_a_launchers_label_says_so(nodes: list[dict[str, Any]], expected: bool) -> None:
    assert may_grow(nodes) is expected


@pytest.mark.parametrize("seen", [True, False])
def test_a_local_ray_is_started_with_what_it_needs(seen: bool) -> None:
    """Any agent port, for another Ray may have the fixed one; no process whose output nobody sees."""
    with _lean_node(RaySettings(worker_logs=seen, dashboard=seen)):
        lean = RayParams(num_cpus=1)
    assert (lean.dashboard_agent_listen_port, lean.include_log_monitor, lean.no_monitor) == (0, seen, not seen)
    assert lean.num_cpus == 1
    usual = RayParams(num_cpus=1)
    assert (usual.dashboard_agent_listen_port, usual.include_log_monitor, usual.no_monitor) == (
        DEFAULT_DASHBOARD_AGENT_LISTEN_PORT,
        None,
        False,
    )


@pytest.mark.parametrize(
    ("root", "given", "expected"),
    [
        ("/tree", "", "/tree"),
        ("/tree", "/a:/b", "/tree:/a:/b"),
        ("/tree", "/a::/tree", "/a:/tree"),
        ("/venv/site-packages", "", ""),
        ("/venv/site-packages", "/a", "/a"),
    ],
)
def test_workers_find_a_tree_and_need_no_help_with_what_is_installed(root: str, given: str, expected: str) -> None:
    assert python_path(Path(root), given, {Path("/venv/site-packages"), Path("/user")}) == expected


@pytest.mark.parametrize(
    ("searched", "expected"),
    [
        (["/bin", "/lib"], ["/bin"]),  # a console command
        (["/work", "/lib"], ["/work"]),  # python -m
        (["", "/lib"], ["/work"]),  # python -c, or a shell
        (["/lib"], []),
    ],
)
def test_workers_search_no_folder_that_this_process_does_not(
    searched: list[str], expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    job = _JobOfThisCode(_py_driver_sys_path=["/bin", "/work"])  # as Ray fills it: the command's folder, this one
    monkeypatch.setattr("os.getcwd", lambda: "/work")
    monkeypatch.setattr(sys, "path", searched)
    serialized = job._serialize()
    monkeypatch.undo()
    assert JobConfig.FromString(serialized).py_driver_sys_path == expected


def test_a_local_ray_that_does_not_start_in_time_is_started_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Ray gives its own node thirty seconds. What the attempt began is ended, and no other child of this process."""
    other = subprocess.Popen(["sleep", "600"])
    begun: list[subprocess.Popen[bytes]] = []

    def slow(**_: Any) -> None:
        begun.append(subprocess.Popen(["sleep", "600"]))
        if len(begun) < 3:
            raise Exception("The current node timed out during startup. This could happen because …")

    monkeypatch.setattr(cluster.ray, "init", slow)
    monkeypatch.setattr(cluster.ray, "cluster_resources", dict)
    try:
        cluster._start_local(RaySettings(dashboard=False), {})
        assert [process.poll() is None for process in begun] == [False, False, True]
        assert other.poll() is None
        begun.clear()
        monkeypatch.setattr(cluster, "STARTS", 2)
        with pytest.raises(RunError, match=r"^a local Ray did not start 2 times: The current node timed out"):
            cluster._start_local(RaySettings(dashboard=False), {})
    finally:
        for process in [other, *begun]:
            process.kill()
            process.wait()


def test_a_cluster_of_this_machine_is_not_joined_unasked(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """`ray start` leaves its address in a file, which `ray.init` follows where no address is given."""
    asked: list[dict[str, Any]] = []
    monkeypatch.setattr(cluster.ray, "init", lambda **options: asked.append(options))
    monkeypatch.setattr(cluster.ray, "cluster_resources", dict)
    caplog.set_level("INFO", logger="ray_app.system.cluster")
    with socket.create_server(("127.0.0.1", 0)) as listening:
        address = f"127.0.0.1:{listening.getsockname()[1]}"
        monkeypatch.setattr(cluster.ray._private.utils, "read_ray_address", lambda: address)
        cluster._start_local(RaySettings(dashboard=False), {})
    told = f"the Ray cluster at {address} is not used: --ray.address {address} or auto would"
    assert asked[0]["address"] == "local"
    assert told in caplog.messages
    caplog.clear()
    cluster._start_local(RaySettings(dashboard=False), {})  # nothing listens there now
    assert [line for line in caplog.messages if "not used" in line] == []
