"""MT-Bench human agreement (arXiv 2306.05685, section 4.2) on non-tied votes, a vote each.

`agreement` is over votes where the judge has a verdict (both orders agree), as the paper counts consistent
votes; `coverage` is their share. `human_human` is how often two humans who voted on the same pair agree.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

from ray_app.metrics.bootstrap import RESAMPLES, Estimate, Ratio, estimates
from ray_app.metrics.kappa import votes_on_pairs
from ray_app.metrics.outcome import Outcome


def mtbench(outcomes: Sequence[Outcome], seed: int, resamples: int = RESAMPLES) -> dict[str, Estimate]:
    """Agreement of judge and humans, its coverage, and of humans among themselves."""
    decided = [float(o.final() is not None) for o in outcomes]
    agree = [float(o.final() is not None and o.final() == o.label) for o in outcomes]
    found = estimates(
        {"agreement": Ratio.of(agree, decided), "coverage": Ratio.mean(decided)},
        [o.group for o in outcomes],
        seed,
        resamples,
    )
    return {**found, "human_human": _human_human(outcomes, seed, resamples)}


def _human_human(outcomes: Sequence[Outcome], seed: int, resamples: int) -> Estimate:
    same, groups = [], []
    for votes in votes_on_pairs(outcomes):
        for one, two in combinations(votes, 2):
            same.append(float(one.label == two.label))
            groups.append(one.group)
    return estimates({"h": Ratio.mean(same)}, groups, seed, resamples)["h"]
