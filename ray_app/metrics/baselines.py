"""What needs no judgment: always the longer response, and always the one that shares more words with the instruction.

length_baseline     the longer one, in characters; two of equal length score ½
overlap_baseline    the one with more of the instruction's words of content; as many of them score ½
against_overlap     the accuracy where the words mislead
beyond              by how much a judge is above such a figure

Whether a judge is better than that is a question of the same rows: `beyond` pairs them, so that it has an interval of
its own. Two intervals side by side, or one and a bare figure, would not tell. Where a baseline is nearly always right,
a judge that is right as often may do no more than it does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ray_app.metrics.bootstrap import Ratio
from ray_app.metrics.outcome import Outcome


def length_baseline(outcomes: Sequence[Outcome]) -> Ratio:
    """Over rows with a gold label."""
    return _always(outcomes, gold_gap)


def overlap_baseline(outcomes: Sequence[Outcome]) -> Ratio:
    """Over rows with a gold label."""
    return _always(outcomes, _overlap_gap)


def against_overlap(accuracy: Ratio, outcomes: Sequence[Outcome]) -> Ratio:
    """The accuracy over rows whose worse response has more of the instruction's words: who matches words scores 0
    there. `accuracy`: a mean over rows.
    """
    misled = [outcome.label in ("A", "B") and _overlap_gap(outcome) < 0 for outcome in outcomes]
    return Ratio(np.where(misled, accuracy.numerator, 0.0), np.where(misled, accuracy.denominator, 0.0))


def _overlap_gap(outcome: Outcome) -> int:
    return _to_gold(outcome, outcome.overlap_gap)


def _always(outcomes: Sequence[Outcome], gap_of: Callable[[Outcome], int]) -> Ratio:
    """`gap_of`: above 0 where the gold response has more of what is counted."""
    labelled = [outcome.label in ("A", "B") for outcome in outcomes]
    values = [_score(gap_of(o)) if known else 0.0 for o, known in zip(outcomes, labelled, strict=True)]
    return Ratio.of(values, [float(known) for known in labelled])


def beyond(accuracy: Ratio, baseline: Ratio) -> Ratio:
    """By how much a judge's accuracy on these rows is above the baseline's: -1 to 1. `accuracy`: a mean over rows."""
    known = baseline.denominator > 0
    apart = np.where(known, accuracy.numerator - baseline.numerator, 0.0)
    return Ratio(apart, known.astype(np.float64), signed=True)


def length_counts(outcomes: Sequence[Outcome]) -> dict[str, int]:
    """Rows whose gold response is longer, shorter, of equal length: for any other convention on ties."""
    gaps = [gold_gap(o) for o in outcomes if o.label in ("A", "B")]
    return {
        "longer": sum(gap > 0 for gap in gaps),
        "equal": sum(gap == 0 for gap in gaps),
        "shorter": sum(gap < 0 for gap in gaps),
    }


def gold_gap(outcome: Outcome) -> int:
    """Characters by which the gold response is longer than the other."""
    return _to_gold(outcome, outcome.length_a - outcome.length_b)


def _to_gold(outcome: Outcome, gap: int) -> int:
    """A difference of response_a to response_b as one of the gold response to the other."""
    return gap if outcome.label == "A" else -gap


def _score(gap: int) -> float:
    return 0.5 if gap == 0 else float(gap > 0)
