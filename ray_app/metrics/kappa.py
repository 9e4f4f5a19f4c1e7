"""Agreement with human votes beyond chance: Cohen's κ (1960), where a pair has several votes.

A human vote is a row; rows that show the same texts are votes on one pair. Only rows where the judge has a
verdict about response_a / response_b enter (both orders agree); their share is reported as `coverage`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np

from ray_app.metrics.bootstrap import (
    RESAMPLES,
    Array,
    Estimate,
    Ratio,
    divide,
    estimate,
    estimates,
    intervals,
)
from ray_app.metrics.outcome import Outcome

Rated = tuple[str, str, str]  # (first rater's letter, second rater's letter, cluster)


def human_agreement(outcomes: Sequence[Outcome], seed: int, resamples: int = RESAMPLES) -> dict[str, Any] | None:
    """κ of judge and single votes, judge and majority, humans among themselves; None without repeats."""
    pairs: dict[str, list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        if outcome.pair and outcome.label is not None:
            pairs[outcome.pair].append(outcome)
    several = [rows for rows in pairs.values() if len(rows) > 1]
    if not several:
        return None
    votes = [row for rows in several for row in rows]
    covered = Ratio.mean([float(row.final() is not None) for row in votes])
    return {
        "pairs": len(several),
        "coverage": estimates({"c": covered}, [row.group for row in votes], seed, resamples)["c"],
        "judge_single_vote": cohen_kappa(_with_votes(several), seed, resamples),
        "judge_majority": cohen_kappa(_with_majority(several), seed, resamples),
        "human_human": cohen_kappa(_among_humans(several), seed, resamples),
    }


def cohen_kappa(rated: Sequence[Rated], seed: int = 0, resamples: int = RESAMPLES) -> Estimate:
    """κ = (p_observed - p_chance) / (1 - p_chance) over A and B; undefined if both say only one letter."""
    cells = [("A", "A"), ("A", "B"), ("B", "A"), ("B", "B")]
    columns = np.array([[float((one, two) == cell) for cell in cells] for one, two, _ in rated])
    if not len(rated):
        return estimate(np.nan, 0, np.nan, np.nan)
    value, low, high = intervals(columns, [group for _, _, group in rated], _kappa, seed, resamples)
    return estimate(value[0], len(rated), low[0], high[0])


def _kappa(sums: Array) -> Array:
    n = sums.sum(axis=1)
    observed = (sums[:, 0] + sums[:, 3]) / n
    one, two = (sums[:, 0] + sums[:, 1]) / n, (sums[:, 0] + sums[:, 2]) / n
    chance = one * two + (1 - one) * (1 - two)
    return divide(observed - chance, 1 - chance)[:, None]


def _with_votes(several: Sequence[Sequence[Outcome]]) -> list[Rated]:
    return [(v, row.label or "", row.group) for rows in several for row in rows if (v := row.final()) is not None]


def _with_majority(several: Sequence[Sequence[Outcome]]) -> list[Rated]:
    out = []
    for rows in several:
        lead = sum(1 if row.label == "A" else -1 for row in rows)
        verdict = rows[0].final()
        if lead and verdict is not None:
            out.append((verdict, "A" if lead > 0 else "B", rows[0].group))
    return out


def _among_humans(several: Sequence[Sequence[Outcome]]) -> list[Rated]:
    out = []
    for rows in several:
        for one, two in combinations(sorted(rows, key=lambda row: row.id), 2):
            # No human is "the first rater", so both directions enter; n counts them.
            out += [
                (one.label or "", two.label or "", one.group),
                (two.label or "", one.label or "", one.group),
            ]
    return out
