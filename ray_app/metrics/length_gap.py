"""Accuracy by quartile of the length gap: by how much the gold response is longer (+) or shorter (-).

A judge that prefers length is weak in the first quartile and strong in the last.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ray_app.metrics.accuracy import accuracy
from ray_app.metrics.baselines import gold_gap
from ray_app.metrics.bootstrap import RESAMPLES, estimates
from ray_app.metrics.outcome import Outcome


def length_gap_quartiles(outcomes: Sequence[Outcome], seed: int, resamples: int = RESAMPLES) -> list[dict[str, Any]]:
    """One entry a quartile that holds rows: number 1-4, smallest and largest gap in characters, accuracy."""
    rows = [o for o in outcomes if o.label in ("A", "B")]
    if not rows:
        return []
    gaps = np.array([gold_gap(o) for o in rows])
    edges = np.quantile(gaps, [0.25, 0.5, 0.75])
    number = np.searchsorted(edges, gaps, side="left") + 1
    out = []
    for quartile in range(1, 5):
        chosen = [row for row, q in zip(rows, number, strict=True) if q == quartile]
        if chosen:
            inside = gaps[number == quartile]
            found = estimates({"a": accuracy(chosen)}, [o.group for o in chosen], seed + quartile, resamples)
            out.append(
                {
                    "quartile": quartile,
                    "from": int(inside.min()),
                    "to": int(inside.max()),
                    "accuracy": found["a"],
                }
            )
    return out
