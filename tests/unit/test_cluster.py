"""Whether nodes may still come."""

from __future__ import annotations

from typing import Any

import pytest

from ray_app.cluster import may_grow

HEAD: dict[str, Any] = {"Alive": True, "Labels": {"ray.io/node-id": "1"}}
LAUNCHED: dict[str, Any] = {"Alive": True, "Labels": {"ray.io/node-id": "2", "ray.io/node-group": "head"}}


@pytest.mark.parametrize(
    ("setting", "nodes", "expected"),
    [
        (None, [HEAD], False),
        (None, [HEAD, LAUNCHED], True),
        (None, [HEAD, {**LAUNCHED, "Alive": False}], False),
        (None, [{"Alive": True}], False),
        (True, [HEAD], True),
        (False, [LAUNCHED], False),
    ],
)
def test_a_launchers_label_says_so_and_the_setting_has_the_last_word(
    setting: bool | None, nodes: list[dict[str, Any]], expected: bool
) -> None:
    assert may_grow(setting, nodes) is expected
