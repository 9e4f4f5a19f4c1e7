"""Agreement with human votes beyond chance, where a pair has several votes: κ that no arrangement changes.

Which of two responses is called A is nobody's choice, so every couple of votes counts in both arrangements: each letter
is then as frequent as the other, chance agrees in half of the votes, and Cohen's κ (1960) is 2p - 1 with p the share of
agreement. In one arrangement, a file that names the winner first would have nothing but A, and κ would be nonsense.

A human vote is a row; rows that show the same texts, either way round, are votes on one pair. Only rows where the
judge has a verdict about response_a / response_b enter (both orders agree); their share is reported as `coverage`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np

from ray_app.metrics.bootstrap import RESAMPLES, Estimate, Ratio, estimate, estimates
from ray_app.metrics.outcome import TURNED, Outcome

Rated = tuple[str, str, str]  # (first rater's letter, second rater's letter, cluster)


class Vote(NamedTuple):
    """A human vote and the judge's verdict on the same pair, both in the arrangement of the pair's first row."""

    label: str
    verdict: str | None
    group: str


def votes_on_pairs(outcomes: Sequence[Outcome]) -> list[list[Vote]]:
    """The votes on each pair; rows are taken in the order of their ids, and the first names the responses."""
    pairs: dict[str, list[Outcome]] = defaultdict(list)
    for outcome in sorted(outcomes, key=lambda outcome: outcome.id):
        if outcome.pair and outcome.label is not None:
            pairs[outcome.pair].append(outcome)
    return [[_vote(row, row.turned != rows[0].turned) for row in rows] for rows in pairs.values()]


def _vote(row: Outcome, turned: bool) -> Vote:
    label, verdict = row.label or "", row.final()
    return Vote(TURNED[label] or "", TURNED.get(verdict), row.group) if turned else Vote(label, verdict, row.group)


def human_agreement(outcomes: Sequence[Outcome], seed: int, resamples: int = RESAMPLES) -> dict[str, Any] | None:
    """κ of judge and single votes, judge and majority, humans among themselves; None without repeats."""
    several = [votes for votes in votes_on_pairs(outcomes) if len(votes) > 1]
    if not several:
        return None
    every = [vote for votes in several for vote in votes]
    covered = Ratio.mean([float(vote.verdict is not None) for vote in every])
    return {
        "pairs": len(several),
        "coverage": estimates({"c": covered}, [vote.group for vote in every], seed, resamples)["c"],
        "judge_single_vote": cohen_kappa(_with_votes(every), seed, resamples),
        "judge_majority": cohen_kappa(_with_majority(several), seed, resamples),
        "human_human": cohen_kappa(_among_humans(several), seed, resamples),
    }


def cohen_kappa(rated: Sequence[Rated], seed: int = 0, resamples: int = RESAMPLES) -> Estimate:
    """κ = (p - ½) / ½ with p the share of agreement: chance agrees in half, whatever the arrangement."""
    if not len(rated):
        return estimate(np.nan, 0, np.nan, np.nan)
    agree = Ratio.mean([float(one == two) for one, two, _ in rated])
    found = estimates({"agree": agree}, [group for _, _, group in rated], seed, resamples)["agree"]
    value, low, high = (np.nan if p is None else 2 * p - 1 for p in (found["value"], found["low"], found["high"]))
    return estimate(value, len(rated), low, high)


def _with_votes(votes: Sequence[Vote]) -> list[Rated]:
    return [(vote.verdict, vote.label, vote.group) for vote in votes if vote.verdict is not None]


def _with_majority(several: Sequence[Sequence[Vote]]) -> list[Rated]:
    out = []
    for votes in several:
        lead = sum(1 if vote.label == "A" else -1 for vote in votes)
        verdict = votes[0].verdict
        if lead and verdict is not None:
            out.append((verdict, "A" if lead > 0 else "B", votes[0].group))
    return out


def _among_humans(several: Sequence[Sequence[Vote]]) -> list[Rated]:
    out = []
    for votes in several:
        out += [(one.label, two.label, one.group) for one, two in combinations(votes, 2)]
    return out
