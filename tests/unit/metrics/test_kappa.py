"""Kappa against an independent computation, whatever the responses are called, and agreement with human votes."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from making import outcome

from ray_app.metrics.kappa import cohen_kappa, human_agreement
from ray_app.metrics.mtbench import mtbench
from ray_app.metrics.outcome import TURNED

PAIRS = st.lists(st.tuples(st.sampled_from("AB"), st.sampled_from("AB"), st.sampled_from("xyz")), min_size=2)


def textbook(table: list[tuple[str, str]]) -> float:
    """Cohen's formula on the table and its turned copy."""
    both = table + [(TURNED[one] or "", TURNED[two] or "") for one, two in table]
    observed = sum(one == two for one, two in both) / len(both)
    first, second = (sum(pair[i] == "A" for pair in both) / len(both) for i in (0, 1))
    chance = first * second + (1 - first) * (1 - second)
    return (observed - chance) / (1 - chance)


def test_a_known_table() -> None:
    table = [("A", "A")] * 20 + [("A", "B")] * 5 + [("B", "A")] * 10 + [("B", "B")] * 15
    rated = [(one, two, str(i)) for i, (one, two) in enumerate(table)]
    found = cohen_kappa(rated)
    assert found["value"] == pytest.approx(textbook(table)) == pytest.approx(0.4)
    assert found["n"] == 50
    assert found["low"] < 0.4 < found["high"]  # type: ignore[operator]


@given(PAIRS)
def test_what_the_responses_are_called_changes_nothing(rated: list[tuple[str, str, str]]) -> None:
    winner_first = [("A", "A" if one == two else "B", group) for one, two, group in rated]
    value = cohen_kappa(rated, resamples=10)["value"]
    assert cohen_kappa(winner_first, resamples=10)["value"] == value
    assert value == pytest.approx(textbook([(one, two) for one, two, _ in rated]))


def test_undefined_without_rows() -> None:
    assert cohen_kappa([])["value"] is None
    assert cohen_kappa([("A", "A", "x"), ("A", "A", "y")])["value"] == 1


@given(PAIRS)
def test_perfect_agreement_is_one_and_kappa_is_symmetric(rated: list[tuple[str, str, str]]) -> None:
    same = [(one, one, group) for one, _, group in rated]
    assert cohen_kappa(same, resamples=10)["value"] == 1
    swapped = [(two, one, group) for one, two, group in rated]
    assert cohen_kappa(rated, resamples=10)["value"] == pytest.approx(cohen_kappa(swapped, resamples=10)["value"])
    value = cohen_kappa(rated, resamples=10)["value"]
    assert value is None or -1 - 1e-9 <= value <= 1 + 1e-9


def test_human_votes_on_one_pair() -> None:
    rows = [
        outcome("1", "A", "A", "B", pair="p", group="g"),
        outcome("2", "A", "A", "B", pair="p", group="g"),
        outcome("3", "B", "A", "B", pair="p", group="g"),
        outcome("4", "B", "B", "A", pair="q", group="h"),
        outcome("5", "B", "B", "A", pair="q", group="h"),
        outcome("6", "A", "A", "A", pair="r", group="i"),
        outcome("7", "A", "A", "A", pair="r", group="i"),
        outcome("8", "A", "A", "B", pair="alone", group="j"),
    ]
    found = human_agreement(rows, 0, 50)
    assert found is not None
    assert found["pairs"] == 3
    assert found["coverage"]["value"] == pytest.approx(5 / 7)
    assert found["judge_single_vote"]["n"] == 5
    # Judge A,A,A,B,B against votes A,A,B,B,B: 4 of 5 agree.
    assert found["judge_single_vote"]["value"] == pytest.approx(0.6)
    assert found["judge_majority"]["value"] == pytest.approx(1)
    # Five pairs of humans (3 + 1 + 1), three agree.
    assert found["human_human"]["n"] == 5
    assert found["human_human"]["value"] == pytest.approx(2 * 3 / 5 - 1)
    assert human_agreement(rows[-1:], 0) is None


def test_votes_on_a_turned_pair_are_votes_on_that_pair() -> None:
    """Half of the humans saw the two models the other way round: the same figures as if none had."""
    rows = [
        outcome(f"{pair}{i}", label, verdict, {"A": "B", "B": "A"}[verdict], pair=pair, group=pair)
        for pair, labels, verdict in (("p", "AAB", "A"), ("q", "BBA", "B"), ("r", "AB", "A"))
        for i, label in enumerate(labels)
    ]
    turned = [
        replace(o, turned=True, label=TURNED[o.label], verdict_ab=o.verdict_ba, verdict_ba=o.verdict_ab)
        if o.id[1] == "1"
        else o
        for o in rows
    ]
    assert [o.final() for o in turned if o.id[0] == "p"] == ["A", "B", "A"]
    assert human_agreement(turned, 0, 50) == human_agreement(rows, 0, 50)
    assert mtbench(turned, 0, 50) == mtbench(rows, 0, 50)
    assert mtbench(rows, 0, 50)["human_human"]["value"] == pytest.approx(2 / 7)
