"""A pointwise judge's ratings against human scores: Pearson's r, Spearman's rho, Kendall's tau-b (scipy.stats).

Intervals are of whole instructions resampled, on Fisher's scale (z = artanh r), where a correlation is about normal:
its bootstrapped standard error with Student's t on the clusters, and at least as wide as the percentiles. Percentiles
alone are too narrow with few clusters. Coverage is simulated in tests/unit/metrics/test_correlation.py.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ray_app.base.schema import derive_seed
from ray_app.benchmarks.base import Benchmark
from ray_app.errors import InputError
from ray_app.metrics.bootstrap import RESAMPLES, Array, Estimate, Ratio, estimate, estimates
from ray_app.metrics.outcome import length
from ray_app.metrics.proportion import CONFIDENCE

Correlation = Callable[[Array, Array], float]
FEWEST = 3  # clusters, and rows, below which there is no interval, and no correlation
# Standard errors on Fisher's scale of n independent rows, the most that rows can be: sqrt(factor / (n - less)). For the
# ranks: Fieller, Hartley & Pearson (Biometrika 44, 1957).
OF_INDEPENDENT_ROWS = {"pearson": (1.0, 3), "spearman": (1.06, 3), "kendall": (0.437, 4)}


@dataclass(frozen=True)
class RatedOutcome:
    """A rated response. A rating of None is unparsed; a quarantined row has no human score either."""

    id: str
    subset: str
    group: str
    score: float | None
    rating: float | None
    length: int = 0


def rated_outcomes(benchmark: Benchmark, ratings: Mapping[str, float | None]) -> list[RatedOutcome]:
    """Outcomes from the judge's mean ratings by id; rows that the loader quarantined are unparsed."""
    rows = [
        RatedOutcome(row.id, row.subset, row.group, row.score, ratings.get(row.id), length(row.response))
        for row in benchmark.rated
    ]
    return rows + [RatedOutcome(fault.id, fault.subset, fault.group, None, None) for fault in benchmark.faulty]


def summarise_rated(
    benchmark: Benchmark,
    outcomes: Sequence[RatedOutcome],
    seed: int,
    resamples: int = RESAMPLES,
    *,
    votes: int | None = None,
    unjudged: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Overall and by subset, with intervals; JSON-able. `votes`, `unjudged` as in `summary.summarise`."""
    if not outcomes:
        raise InputError(f"{benchmark.name}: no row was rated")
    outcomes = sorted(outcomes, key=lambda outcome: outcome.id)
    names = sorted({outcome.subset for outcome in outcomes})
    reasons = [*(fault.reason for fault in benchmark.faulty), *(unjudged or {}).values()]
    return {
        "benchmark": benchmark.name,
        "kind": "rated",
        "source": benchmark.source,
        "protocol": "pointwise",
        "votes": votes or 1,
        "n_in": benchmark.n_in,
        "n": len(outcomes),
        "clusters": len({outcome.group for outcome in outcomes}),
        "quarantined": dict(Counter(reasons)),
        "dropped": dict(benchmark.dropped),
        "seed": seed,
        "resamples": resamples,
        "confidence": CONFIDENCE,
        "overall": rated_block(outcomes, _seed(seed, ""), resamples),
        "subsets": {
            name: rated_block([o for o in outcomes if o.subset == name], _seed(seed, name), resamples)
            for name in (names if names != [""] else [])
        },
    }


def rated_block(outcomes: Sequence[RatedOutcome], seed: int, resamples: int = RESAMPLES) -> dict[str, Estimate]:
    """The three correlations over rows with a rating and a score, the share of rows without a rating, and, as a
    baseline, Spearman's rho of the scores with the responses' lengths.
    """
    both = [o for o in outcomes if o.rating is not None and o.score is not None]
    scores = np.array([o.score for o in both], dtype=np.float64)
    ratings = np.array([o.rating for o in both], dtype=np.float64)
    lengths = np.array([o.length for o in both], dtype=np.float64)
    groups = [o.group for o in both]
    unparsed = Ratio.mean([float(o.rating is None) for o in outcomes])
    found = correlations(ratings, scores, groups, seed, resamples)
    found |= estimates({"unparsed_rate": unparsed}, [o.group for o in outcomes], seed, resamples)
    by_length = correlations(lengths, scores, groups, seed, resamples, names=("spearman",))
    return {**found, "length_spearman": by_length["spearman"]}


def correlations(
    one: Array,
    two: Array,
    groups: Sequence[str],
    seed: int,
    resamples: int = RESAMPLES,
    names: Sequence[str] = ("pearson", "spearman", "kendall"),
) -> dict[str, Estimate]:
    """Each named correlation of two columns with its interval, from the same resamples. Undefined (None) with fewer
    than three rows, or where a column is constant; without an interval where there are fewer than three clusters.
    """
    known = _known()
    members = _members(groups)
    rng = np.random.default_rng(seed)
    drawn: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(resamples if len(members) >= FEWEST else 0):
        at = np.concatenate([members[k] for k in rng.integers(0, len(members), len(members))])
        for name in names:
            drawn[name].append(_value(known[name], one[at], two[at]))
    found = {}
    for name in names:
        value = _value(known[name], one, two)
        factor, less = OF_INDEPENDENT_ROWS[name]
        least = np.sqrt(factor / max(len(one) - less, 1))
        found[name] = estimate(value, len(one), *_bounds(value, np.array(drawn[name]), least, len(one), len(members)))
    return found


def _bounds(value: float, drawn: Array, least: float, rows: int, clusters: int) -> tuple[float, float]:
    from scipy.special import stdtrit  # as in `proportion`: a tenth of a second that only this pays

    drawn = drawn[~np.isnan(drawn)]
    if np.isnan(value) or len(drawn) < 2 or rows <= FEWEST:
        return np.nan, np.nan
    edge = 1 - 1 / (2 * rows)  # a correlation of 1 has no place on Fisher's scale
    z = float(np.arctanh(np.clip(value, -edge, edge)))
    spread = max(float(np.arctanh(drawn.clip(-edge, edge)).std(ddof=1)), least)
    half = float(stdtrit(clusters - 1, (1 + CONFIDENCE) / 2)) * spread
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail])
    return min(float(low), float(np.tanh(z - half)), value), max(float(high), float(np.tanh(z + half)), value)


def _value(correlation: Correlation, one: Array, two: Array) -> float:
    if len(one) < FEWEST or np.ptp(one) == 0 or np.ptp(two) == 0:
        return np.nan
    return correlation(one, two)


def _known() -> dict[str, Correlation]:
    from scipy import stats  # half a second, which every command would pay at its start

    return {
        "pearson": lambda one, two: float(stats.pearsonr(one, two).statistic),
        "spearman": lambda one, two: float(stats.spearmanr(one, two).statistic),
        "kendall": lambda one, two: float(stats.kendalltau(one, two).statistic),
    }


def _members(groups: Sequence[str]) -> list[Any]:
    """Row indices of every cluster, clusters in the order of their names."""
    at: dict[str, list[int]] = {}
    for index, group in enumerate(groups):
        at.setdefault(group, []).append(index)
    return [np.array(at[group]) for group in sorted(at)]


def _seed(seed: int, name: str) -> int:
    return derive_seed(seed, 0, "correlation", name, "", 0)
