"""Whether nodes may still come, and what a local Ray is started with."""

from __future__ import annotations

from typing import Any

import pytest
from ray._private.parameter import RayParams
from ray._private.ray_constants import DEFAULT_DASHBOARD_AGENT_LISTEN_PORT

from ray_app.cluster import _any_agent_port, may_grow

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


def test_a_local_ray_does_not_want_rays_fixed_agent_port() -> None:
    """Another Ray may have it, or what a killed one has left: a start would wait for it."""
    built: list[RayParams] = []
    with _any_agent_port():
        built.append(RayParams(num_cpus=1))
    built.append(RayParams(num_cpus=1))
    assert [params.dashboard_agent_listen_port for params in built] == [0, DEFAULT_DASHBOARD_AGENT_LISTEN_PORT]
    assert built[0].num_cpus == 1
