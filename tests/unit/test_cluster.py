"""Whether nodes may still come, and what a local Ray is started with."""

from __future__ import annotations

from typing import Any

import pytest
from ray._private.parameter import RayParams
from ray._private.ray_constants import DEFAULT_DASHBOARD_AGENT_LISTEN_PORT

from ray_app.cluster import _lean_node, may_grow
from ray_app.cluster_settings import RaySettings

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
