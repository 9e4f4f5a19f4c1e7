"""Whether nodes may still come."""

from __future__ import annotations

from typing import Any

import pytest

from ray_app.cluster import may_grow

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
