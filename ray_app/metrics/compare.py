"""Two runs on the same rows: exact McNemar test and the clustered bootstrap of the difference. Pure.

"Iteration 3 beats iteration 2" is then a difference with an interval, not two figures side by side.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import NormalDist
from typing import Any

import numpy as np

from ray_app.errors import InputError
from ray_app.metrics.bootstrap import RESAMPLES, Array, Estimate, Ratio, cluster_sums, estimates
from ray_app.metrics.outcome import ANY, Outcome
from ray_app.metrics.proportion import CONFIDENCE


def compare(a: Sequence[Outcome], b: Sequence[Outcome], seed: int = 0, resamples: int = RESAMPLES) -> dict[str, Any]:
    """Run b against run a, joined by id.

    `difference` is accuracy of b minus that of a with its 95 % interval, clustered by instruction. `mcnemar` is the
    exact two-sided test (McNemar, 1947) on clusters that one run scores higher on: rows of one instruction are not
    independent. `significant` asks for both: with few clusters an interval alone is too narrow. `measures` says what
    each run's accuracy is of, since runs of different modes and vote rules can be compared (a row scores the share of
    its orders that are right). Raises InputError with counts when ids or labels differ.
    """
    first, second = {o.id: o for o in a}, {o.id: o for o in b}
    _check(first, second)
    ids = sorted(first)
    scores_a = np.array([first[i].score() for i in ids])
    scores_b = np.array([second[i].score() for i in ids])
    groups = [first[i].group for i in ids]
    ratios = {
        "a": Ratio.mean(scores_a.tolist()),
        "b": Ratio.mean(scores_b.tolist()),
        "difference": Ratio.mean((scores_b - scores_a).tolist(), signed=True),
    }
    found = estimates(ratios, groups, seed, resamples)
    better, rows = cluster_sums(np.stack([scores_b - scores_a, np.ones(len(ids))], axis=1), groups).T
    found["difference"] = widened(found["difference"], better / rows)
    low, high = found["difference"]["low"], found["difference"]["high"]
    test = mcnemar(int((better < 0).sum()), int((better > 0).sum()))
    apart = low is not None and high is not None and (low > 0 or high < 0)
    return {
        "n": len(ids),
        "clusters": len(set(groups)),
        "measures": {"a": measure(first.values()), "b": measure(second.values())},
        "accuracy_a": found["a"],
        "accuracy_b": found["b"],
        "difference": found["difference"],
        "significant": apart and test["p_value"] < 1 - CONFIDENCE,
        "mcnemar": test,
    }


def widened(difference: Estimate, by_cluster: Array) -> Estimate:
    """The bootstrapped interval of a paired difference, at least as wide as Bonett and Price's (Journal of Educational
    and Behavioral Statistics 37, 2012) on the clusters: one is added to those that are better and to those that are
    worse, so that runs which never differ are not said to be equal for certain.
    """
    if difference["low"] is None or difference["high"] is None:
        return difference
    n = len(by_cluster) + 2.0
    up, down = by_cluster.clip(min=0).sum() + 1.0, (-by_cluster).clip(min=0).sum() + 1.0
    middle = (up - down) / n
    half = NormalDist().inv_cdf((1 + CONFIDENCE) / 2) * float(np.sqrt((up + down) / n - middle**2) / np.sqrt(n))
    low, high = min(difference["low"], middle - half), max(difference["high"], middle + half)
    return {**difference, "low": max(float(low), -1.0), "high": min(float(high), 1.0)}


def measure(outcomes: Iterable[Outcome]) -> str:
    """What an accuracy of these rows is of, in words."""
    rows = [outcome for outcome in outcomes if outcome.label is not None]
    drawn = max((votes.drawn for row in rows for _, _, votes in row.verdicts() if votes is not None), default=1)
    verdict = f"majority of up to {drawn} votes" if drawn > 1 else "one verdict"
    kinds = {ANY if ANY in row.orders else len(row.orders) for row in rows}
    where = {2: "in each of both orders", 1: "in one order", ANY: "on the pair, whatever its order"}
    return f"{verdict} {where[kinds.pop()] if len(kinds) == 1 else 'in different orders from row to row'}"


def mcnemar(a_better: int, b_better: int) -> dict[str, Any]:
    """Exact binomial form: under no difference a discordant cluster favours either run with probability ½."""
    from scipy import stats  # half a second, which every command would pay at its start

    discordant = a_better + b_better
    p = float(stats.binomtest(b_better, discordant, 0.5).pvalue) if discordant else 1.0
    return {"a_better": a_better, "b_better": b_better, "p_value": p}


def _check(first: dict[str, Outcome], second: dict[str, Outcome]) -> None:
    only_a, only_b = len(first.keys() - second.keys()), len(second.keys() - first.keys())
    if only_a or only_b:
        raise InputError(f"the runs judged different rows: {only_a} ids only in the first, {only_b} only in the second")
    if not first:
        raise InputError("the runs hold no rows to compare")
    labels = sum(first[i].label != second[i].label for i in first)
    if labels:
        raise InputError(f"the runs do not match: {labels} rows differ in the label")
