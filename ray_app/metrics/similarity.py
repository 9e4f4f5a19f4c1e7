"""Accuracy by how similar the two instructions of a pair are: the one that is judged by, and the one that the worse
response answers. Thirds of the rows, from the least similar on.

Where the two ask for almost the same, only close reading of the instruction tells the responses apart; a judge that is
right on dissimilar ones alone tells topics apart. Rows without a second instruction do not enter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ray_app.metrics.accuracy import accuracy
from ray_app.metrics.bootstrap import RESAMPLES, estimates
from ray_app.metrics.outcome import Outcome

THIRDS = ("least", "middle", "most")


def accuracy_by_similarity(outcomes: Sequence[Outcome], seed: int, resamples: int = RESAMPLES) -> list[dict[str, Any]]:
    """One entry a third that holds rows: its name, smallest and largest similarity, accuracy with its interval. Rows of
    equal similarity are of one third.
    """
    rows = [outcome for outcome in outcomes if outcome.similarity is not None]
    if not rows:
        return []
    values = np.array([outcome.similarity for outcome in rows], dtype=np.float64)
    third = np.searchsorted(np.quantile(values, [1 / 3, 2 / 3]), values, side="left")
    out = []
    for number, name in enumerate(THIRDS):
        inside = third == number
        if inside.any():
            chosen = [row for row, wanted in zip(rows, inside, strict=True) if wanted]
            found = estimates({"a": accuracy(chosen)}, [o.group for o in chosen], seed + number, resamples)
            span = {"from": float(values[inside].min()), "to": float(values[inside].max())}
            out.append({"third": name, **span, "accuracy": found["a"]})
    return out


def headline(summary: Mapping[str, Any]) -> dict[str, Any]:
    """The figures as a headline has them, {accuracy_least_similar: estimate, …}; empty where there are none."""
    return {f"accuracy_{part['third']}_similar": part["accuracy"] for part in summary.get("similarity_thirds", ())}
