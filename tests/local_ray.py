"""A local Ray for tests that use it in their own process."""

from __future__ import annotations

import time
from typing import Any

import ray

ATTEMPTS = 3


def start_ray(**options: Any) -> None:
    """`ray.init`, again where it did not start in time: two Rays that start side by side on two cores may take a
    minute, and its own limit is shorter (`ray_app.system.cluster` does the same for commands).
    """
    for attempt in range(1, ATTEMPTS + 1):
        try:
            ray.init(address="local", **options)
            return
        except Exception:  # Ray raises no class of its own for this
            ray.shutdown()
            if attempt == ATTEMPTS:
                raise
            time.sleep(5)
