"""Calibration of votes: vote share against accuracy (reliability table) and the expected calibration error.

Needs all k votes of every order (`early_stop: false`): counts that stopped when settled say nothing about
shares. ECE with ten equal bins after Guo et al. (arXiv 1706.04599): Σ n_bin / n · |accuracy - mean share|.
Chance alone moves the bins of a calibrated judge too, so no ECE is 0, and it has no interval: one around a figure that
is biased upwards would never reach what a calibrated judge shows. `if_calibrated` is that: what one with these shares
would show on as many verdicts, if those of an instruction, which are not independent, were right and wrong together as
far as their shares allow. Only what lies above it speaks against the judge.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ray_app.metrics.bootstrap import Array
from ray_app.metrics.outcome import Outcome

BINS = 10
SIMULATED = 400


def calibration(outcomes: Sequence[Outcome], seed: int) -> dict[str, Any] | None:
    """Reliability table and ECE over orders with a majority; None where votes are lacking, single or partial.

    Confidence is the majority's share of all votes drawn, so unparsed votes lower it.
    """
    share, right, groups = _points(outcomes)
    if not len(share):
        return None
    index = np.minimum((share * BINS).astype(int), BINS - 1)
    apart = np.abs(np.bincount(index, right - share, BINS)).sum() / len(share)
    return {
        "ece": {"value": float(apart), "n": len(share)},
        "if_calibrated": _if_calibrated(share, index, groups, seed),
        "bins": [_bin(b, share[index == b], right[index == b]) for b in range(BINS) if (index == b).any()],
    }


def _points(outcomes: Sequence[Outcome]) -> tuple[Array, Array, list[str]]:
    share, right, groups = [], [], []
    for outcome in outcomes:
        if outcome.label is None:
            continue
        for order, verdict, votes in outcome.verdicts():
            if outcome.partial or votes is None:
                return np.empty(0), np.empty(0), []
            if verdict is None or votes.drawn < 2:
                continue
            share.append(max(votes.a, votes.b) / votes.drawn)
            right.append(float(verdict == outcome.gold(order)))
            groups.append(outcome.group)
    return np.array(share), np.array(right), groups


def _if_calibrated(share: Array, index: NDArray[np.int64], groups: Sequence[str], seed: int) -> dict[str, float]:
    """Mean and 95th percentile of the ECE where every verdict is right with its share's probability."""
    rng = np.random.default_rng(seed)
    names, cluster = np.unique(np.asarray(groups, dtype=object).astype(str), return_inverse=True)
    found = []
    for _ in range(SIMULATED):
        right = rng.random(len(names))[cluster] < share
        # |Σ right - Σ share| of a bin is n_bin · |accuracy - mean share|.
        found.append(np.abs(np.bincount(index, right - share, BINS)).sum() / len(share))
    return {"mean": float(np.mean(found)), "p95": float(np.quantile(found, 0.95))}


def _bin(number: int, share: Array, right: Array) -> dict[str, Any]:
    return {
        "from": number / BINS,
        "to": (number + 1) / BINS,
        "n": len(share),
        "share": float(share.mean()),
        "accuracy": float(right.mean()),
    }
