"""The metrics of docs/evaluation.md on hand-computed cases, and the properties that tie them together."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from making import outcome, outcomes, votes

from ray_app.metrics.accuracy import accuracy, sample_accuracy
from ray_app.metrics.baselines import length_baseline, length_counts
from ray_app.metrics.bootstrap import Ratio
from ray_app.metrics.constant_baseline import constant_baseline
from ray_app.metrics.first_position import first_position_rate
from ray_app.metrics.judgebench import net_agreement
from ray_app.metrics.length_gap import length_gap_quartiles
from ray_app.metrics.outcome import ANY, Outcome
from ray_app.metrics.position_consistent import inconsistent_rate, position_consistent_accuracy
from ray_app.metrics.unparsed import unparsed_rate, unparsed_vote_rate

# Gold A is right as A in order ab and as B in order ba.
ROWS = [
    outcome("both right", "A", "A", "B"),
    outcome("always first", "A", "A", "A"),
    outcome("both wrong", "B", "A", "B"),
    outcome("half parsed", "B", "B", None),
    outcome("unparsed", "A", None, None),
]


def value(ratio: Ratio | None) -> float:
    assert ratio is not None
    return float(ratio.numerator.sum() / ratio.denominator.sum())


def test_hand_computed() -> None:
    assert value(accuracy(ROWS)) == pytest.approx((2 + 1 + 0 + 1 + 0) / 10)
    assert value(accuracy(ROWS, unparsed=0.5)) == pytest.approx((2 + 1 + 0 + 1.5 + 1) / 10)
    assert value(position_consistent_accuracy(ROWS)) == pytest.approx(1 / 5)
    assert value(inconsistent_rate(ROWS)) == pytest.approx(1 / 5)
    assert value(first_position_rate(ROWS)) == pytest.approx(4 / 7)
    assert value(unparsed_rate(ROWS)) == pytest.approx(3 / 10)
    assert value(constant_baseline(ROWS)) == pytest.approx(3 / 5)
    assert value(net_agreement(ROWS)) == pytest.approx(2 / 5)
    assert [row.score() for row in ROWS] == [1, 0.5, 0, 0.5, 0]
    assert [row.final() for row in ROWS] == ["A", None, "A", None, None]


def test_one_order_and_order_free_verdicts() -> None:
    rows = [
        outcome("ba right", "A", None, "B", orders=("ba",)),
        outcome("ba wrong", "A", None, "A", orders=("ba",)),
        outcome("any right", "B", "B", orders=(ANY,)),
    ]
    assert value(accuracy(rows)) == pytest.approx(2 / 3)
    assert not position_consistent_accuracy(rows).denominator.any()
    assert value(first_position_rate(rows)) == pytest.approx(1 / 2)
    assert first_position_rate(rows).denominator.tolist() == [1, 1, 0]
    assert [row.final() for row in rows] == ["A", "B", "B"]
    assert value(net_agreement(rows)) == value(accuracy(rows))


def test_a_row_without_gold_is_wrong_and_enters_no_baseline() -> None:
    rows = [outcome("lost", None, None, None), outcome("kept", "A", "A", "B", length_a=2, length_b=1)]
    assert value(accuracy(rows)) == 0.5
    assert value(length_baseline(rows)) == value(constant_baseline(rows)) == 1
    assert length_baseline(rows).denominator.tolist() == [0, 1]


def test_sample_accuracy_is_the_mean_over_votes() -> None:
    rows = [
        outcome("1", "A", "A", "B", votes_ab=votes("AAB-"), votes_ba=votes("BBBB")),
        outcome("2", "B", None, "A", votes_ab=votes("AB"), votes_ba=votes("A-")),
    ]
    assert value(sample_accuracy(rows)) == pytest.approx((2 / 4 + 4 / 4 + 1 / 2 + 1 / 2) / 4)
    assert value(sample_accuracy(rows, unparsed=0.5)) == pytest.approx((2.5 / 4 + 1 + 1 / 2 + 1.5 / 2) / 4)
    assert value(accuracy(rows)) == pytest.approx(3 / 4)
    assert value(unparsed_vote_rate(rows)) == pytest.approx(2 / 12)
    assert sample_accuracy([dataclasses.replace(rows[0], partial=True)]) is None
    assert sample_accuracy([outcome("3", "A", "A", "B")]) is None


def test_length_baseline_counts_equal_lengths_half() -> None:
    rows = [
        outcome("1", "A", "A", "B", length_a=5, length_b=3),
        outcome("2", "B", "A", "B", length_a=5, length_b=3),
        outcome("3", "B", "A", "B", length_a=4, length_b=4),
        outcome("4", "B", "A", "B", length_a=4, length_b=9),
    ]
    assert value(length_baseline(rows)) == pytest.approx(2.5 / 4)
    assert length_counts(rows) == {"longer": 2, "equal": 1, "shorter": 1}


def test_length_gap_quartiles() -> None:
    gaps = [-40, -30, -20, -10, 10, 20, 30, 40]
    rows = [
        outcome(f"{i}", "A", "A" if gap > 0 else "B", "B" if gap > 0 else "A", length_a=100 + gap, length_b=100)
        for i, gap in enumerate(gaps)
    ]
    found = length_gap_quartiles(rows, 0, 100)
    assert [(q["quartile"], q["from"], q["to"]) for q in found] == [
        (1, -40, -30),
        (2, -20, -10),
        (3, 10, 20),
        (4, 30, 40),
    ]
    assert [q["accuracy"]["value"] for q in found] == [0, 0, 1, 1]
    assert length_gap_quartiles([outcome("x", None, None)], 0) == []
    same = [outcome(str(i), "A", "A", "B") for i in range(4)]
    assert [q["accuracy"]["n"] for q in length_gap_quartiles(same, 0, 10)] == [4]


@given(outcomes())
def test_bounds_between_metrics(rows: list[Outcome]) -> None:
    plain, half = value(accuracy(rows)), value(accuracy(rows, unparsed=0.5))
    both = value(position_consistent_accuracy(rows))
    unparsed = value(unparsed_rate(rows))
    assert 0 <= both <= plain <= half <= 1
    assert half - plain == pytest.approx(unparsed / 2)
    assert plain <= 1 - unparsed + 1e-12
    # Right in both orders, plus half of the rows right in one of them, is accuracy.
    assert plain == pytest.approx(sum(row.score() for row in rows) / len(rows))
    assert value(net_agreement(rows)) >= both


@given(outcomes())
def test_naming_the_responses_the_other_way_round_changes_nothing(rows: list[Outcome]) -> None:
    mirrored = [
        dataclasses.replace(
            row,
            label="B" if row.label == "A" else "A",
            verdict_ab=row.verdict_ba,
            verdict_ba=row.verdict_ab,
            length_a=row.length_b,
            length_b=row.length_a,
        )
        for row in rows
    ]
    for metric in (accuracy, position_consistent_accuracy, unparsed_rate, length_baseline, net_agreement):
        assert value(metric(rows)) == value(metric(mirrored))
    assert value(constant_baseline(rows)) == pytest.approx(1 - value(constant_baseline(mirrored)))


@given(outcomes())
def test_a_judge_that_always_says_first_is_right_half_the_time(rows: list[Outcome]) -> None:
    first = [dataclasses.replace(row, verdict_ab="A", verdict_ba="A") for row in rows]
    assert value(accuracy(first)) == 0.5
    assert value(position_consistent_accuracy(first)) == 0
    assert value(inconsistent_rate(first)) == value(first_position_rate(first)) == 1


@given(outcomes())
def test_a_perfect_judge_scores_one_everywhere(rows: list[Outcome]) -> None:
    perfect = [
        dataclasses.replace(row, verdict_ab=row.label, verdict_ba="B" if row.label == "A" else "A") for row in rows
    ]
    for metric in (accuracy, position_consistent_accuracy, net_agreement):
        assert value(metric(perfect)) == 1
    assert value(first_position_rate(perfect)) == 0.5
    assert [row.final() for row in perfect] == [row.label for row in rows]
