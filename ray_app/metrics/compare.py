"""Two runs on the same rows: an exact sign test by clusters and the clustered bootstrap of the difference. Pure.

"Checkpoint 3 beats checkpoint 2 on such rows" is then a difference with an interval, not two figures side by side. What
another training seed would have made of either is not in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from ray_app.errors import InputError
from ray_app.metrics.bootstrap import RESAMPLES, Ratio, cluster_sums, estimates
from ray_app.metrics.outcome import ANY, Outcome
from ray_app.metrics.proportion import CONFIDENCE


def compare(a: Sequence[Outcome], b: Sequence[Outcome], seed: int = 0, resamples: int = RESAMPLES) -> dict[str, Any]:
    """Run b against run a, joined by id.

    `difference` is accuracy of b minus that of a with its 95 % interval, clustered by instruction. `mcnemar` is the
    exact two-sided sign test on clusters, by which run scores higher in them (McNemar's test of 1947, exactly that
    where a cluster is one verdict): rows of one instruction are not independent.
    `significant` asks for both: with few clusters an interval alone is too narrow. `measures` says what each run's
    accuracy is of, since runs of different modes and vote rules can be compared (a row scores the share of its orders
    that are right). Raises InputError with counts when ids or labels differ.
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
    better = cluster_sums((scores_b - scores_a)[:, None], groups)[:, 0]
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
