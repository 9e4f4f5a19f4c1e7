"""Figures that only the instruction can make good."""

from __future__ import annotations

import itertools

import pytest

from ray_app.metrics.mirrored import instruction_sensitivity, mirrored_accuracy
from ray_app.metrics.outcome import Outcome


def outcome(identity: str, right: tuple[bool, bool], mirror: str | None, label: str = "A") -> Outcome:
    """A row judged in both orders: right or wrong in each."""
    verdicts = [(label if ok else "AB".replace(label, "")) for ok in right]
    turned = {"A": "B", "B": "A"}
    return Outcome(identity, "", "g", label, verdicts[0], turned[verdicts[1]], mirror=mirror)


def couple(one: tuple[bool, bool], other: tuple[bool, bool], name: str = "") -> list[Outcome]:
    return [outcome(f"{name}1", one, f"{name}2"), outcome(f"{name}2", other, f"{name}1", "B")]


def value(ratio: object) -> tuple[float, float]:
    return float(ratio.numerator.sum()), float(ratio.denominator.sum())  # type: ignore[attr-defined]


BOTH = tuple(itertools.product([True, False], repeat=2))


@pytest.mark.parametrize("one", BOTH)
@pytest.mark.parametrize("other", BOTH)
def test_all_sixteen_cases(one: tuple[bool, bool], other: tuple[bool, bool]) -> None:
    rows = couple(one, other)
    assert value(mirrored_accuracy(rows)) == (float(all(one) and all(other)), 1)
    consistent = len(set(one)) == len(set(other)) == 1
    assert value(instruction_sensitivity(rows)) == (float(consistent and one == other), float(consistent))


def test_a_coin_scores_a_sixteenth_and_a_preference_for_a_response_nothing() -> None:
    coin = [row for i, (a, b) in enumerate(itertools.product(BOTH, BOTH)) for row in couple(a, b, str(i))]
    assert value(mirrored_accuracy(coin)) == (1, 16)
    longer = [row for i in range(8) for row in couple((True, True), (False, False), str(i))]
    assert value(mirrored_accuracy(longer)) == (0, 8)
    assert value(instruction_sensitivity(longer)) == (0, 8)


def test_rows_without_a_judged_mirror_do_not_count() -> None:
    alone = [outcome("a", (True, True), None), outcome("b", (True, True), "gone")]
    assert value(mirrored_accuracy(alone)) == (0, 0)
    unparsed = couple((True, True), (True, True))
    unparsed[1] = Outcome("2", "", "g", "B", None, None, mirror="1")
    assert value(mirrored_accuracy(unparsed)) == (0, 1)
    assert value(instruction_sensitivity(unparsed)) == (0, 0)
