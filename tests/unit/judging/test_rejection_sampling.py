"""Rejection sampling's decisions: what is kept, the balance, DPO's pairs."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_app.judging.rejection_sampling import (
    Rule,
    balanced,
    empty_cause,
    empty_scored_cause,
    pass_rates,
    preferences,
    select,
    select_scored,
    unsure,
)
from ray_app.judging.samples import Sample
from ray_app.judging.settings import JudgingSettings


def sample(pair: int, order: str, index: int, verdict: str | None, kept: bool = False) -> Sample:
    gold = "A" if order == "chosen_first" else "B"
    return Sample(f"p{pair}", order, index, verdict, verdict == gold, kept)


def test_rates_count_pair_and_order_not_draws() -> None:
    seen = [
        sample(1, "chosen_first", 0, "A", kept=True),
        sample(1, "rejected_first", 0, "A"),
        sample(1, "rejected_first", 1, None),
        sample(1, "rejected_first", 2, "B", kept=True),
        sample(2, "chosen_first", 0, None),
        sample(2, "chosen_first", 1, "B"),
    ]
    result = select(seen, run_seed=0, iteration=1)
    assert (result.tried, result.kept) == (3, 2)
    assert result.keep_rate == 2 / 3
    assert result.pass_rate == 1 / 3, "only sample 0 counts"
    assert [s.sample for s in result.rows] == [0, 2]


orders = st.sampled_from(["chosen_first", "rejected_first"])


@given(st.dictionaries(st.tuples(st.integers(0, 40), orders), st.integers(0, 5)), st.integers(0, 9))
def test_balance_is_exact_seeded_and_blind_to_row_order(units: dict[tuple[int, str], int], seed: int) -> None:
    kept = [sample(p, o, j, "A" if o == "chosen_first" else "B", kept=True) for (p, o), j in units.items()]
    rows = balanced(kept, seed, 1)
    letters = [row.verdict for row in rows]
    assert (
        letters.count("A")
        == letters.count("B")
        == min(sum(s.verdict == "A" for s in kept), sum(s.verdict == "B" for s in kept))
    )
    assert balanced(reversed(kept), seed, 1) == rows
    assert set(rows) <= set(kept)


def test_surplus_rows_differ_by_seed() -> None:
    kept = [sample(p, "chosen_first", 0, "A", kept=True) for p in range(40)]
    kept += [sample(p, "rejected_first", 0, "B", kept=True) for p in range(20)]
    assert balanced(kept, 0, 1) != balanced(kept, 1, 1)
    assert len(balanced(kept, 0, 1)) == 40


def test_one_letter_only_gives_an_empty_set_with_its_cause() -> None:
    seen = [sample(p, "chosen_first", 0, "A", kept=True) for p in range(3)]
    seen += [sample(p, "rejected_first", 0, "A") for p in range(3)]
    result = select(seen, 0, 1)
    assert result.rows == ()
    cause = empty_cause(result, unparsed=0, drawn=6)
    assert "6 (pair, order)" in cause
    assert "3 A" in cause


def test_preferences_pair_a_correct_with_a_wrong_parsed_judgment() -> None:
    seen = [
        sample(1, "chosen_first", 0, "A", kept=True),
        sample(1, "chosen_first", 1, None),
        sample(1, "chosen_first", 2, "B"),
        sample(1, "rejected_first", 0, "B", kept=True),
        sample(1, "rejected_first", 1, "A"),
        sample(2, "chosen_first", 0, "A", kept=True),
        sample(2, "chosen_first", 1, None),
    ]
    pairs = preferences(seen, Rule(0, 1, balance=True, recipe="dpo"))
    assert [(good.unit, good.sample, bad.sample) for good, bad in pairs] == [
        (("p1", "chosen_first"), 0, 2),
        (("p1", "rejected_first"), 0, 1),
    ]


def drawn(pair: int, order: str, verdicts: str) -> list[Sample]:
    """The samples of one unit, `-` unparsed, a lower-case letter bare; the first acceptable right one is kept."""
    gold = "A" if order == "chosen_first" else "B"
    kept = verdicts.find(gold)
    return [
        Sample(f"p{pair}", order, j, None if v == "-" else v.upper(), v.upper() == gold, j == kept, v.islower())
        for j, v in enumerate(verdicts)
    ]


def pairs_of(samples: list[Sample], **rule: Any) -> list[tuple[int, int]]:
    return [(good.sample, bad.sample) for good, bad in preferences(samples, Rule(0, 1, False, "dpo", **rule))]


def test_several_preferences_of_one_prompt() -> None:
    unit = drawn(1, "chosen_first", "AABBA-B")
    (first,) = pairs_of(unit)
    found = pairs_of(unit, pairs_per_prompt=3)
    assert found[0] == first, "the one that there is by default is among them"
    assert [good for good, _ in found] == [0, 1, 4], "each right judgment once: it names the row"
    assert len({bad for _, bad in found}) == 3, "wrong ones take turns"
    assert {bad for _, bad in found} == {2, 3, 6}
    few = pairs_of(drawn(2, "chosen_first", "ABAAA"), pairs_per_prompt=3)
    assert few == [(0, 1), (2, 1), (3, 1)]
    assert pairs_of(drawn(3, "chosen_first", "AAA"), pairs_per_prompt=3) == []


def test_a_bare_judgment_is_not_chosen_but_may_be_rejected() -> None:
    assert pairs_of(drawn(1, "chosen_first", "aAbaA"), pairs_per_prompt=9) == [(1, 2), (4, 2)]


def test_judgments_without_a_verdict_may_be_the_rejected_ones() -> None:
    unit = drawn(1, "chosen_first", "-A-")
    assert pairs_of(unit) == []
    assert pairs_of(unit, unparsed_as_wrong=True)[0][1] in (0, 2)
    both = drawn(2, "chosen_first", "-ABA")
    assert {bad for _, bad in pairs_of(both, unparsed_as_wrong=True, pairs_per_prompt=2)} == {0, 2}


def test_what_cannot_be_trained_on_is_replaced_by_the_next() -> None:
    unit = drawn(1, "chosen_first", "ABBA")
    ((_, first),) = pairs_of(unit)
    ((_, second),) = pairs_of(unit, unusable=frozenset({("p1", "chosen_first", first)}))
    assert {first, second} == {1, 2}
    assert pairs_of(unit, unusable=frozenset(("p1", "chosen_first", j) for j in (1, 2))) == []
    assert pairs_of(unit, unusable=frozenset({("p1", "chosen_first", 3)}), pairs_per_prompt=2) == [(0, first)]


@given(
    st.dictionaries(st.tuples(st.integers(0, 9), orders), st.text("AB-", min_size=1, max_size=8), max_size=12),
    st.integers(1, 5),
)
def test_preferences_are_balanced_by_row_and_named_once(units: dict[tuple[int, str], str], most: int) -> None:
    samples = [sample for (pair, order), letters in units.items() for sample in drawn(pair, order, letters)]
    rule = Rule(3, 1, balance=True, recipe="dpo", pairs_per_prompt=most)
    found = preferences(samples, rule)
    letters = [good.verdict for good, _ in found]
    assert letters.count("A") == letters.count("B")
    assert len({good.key for good, _ in found}) == len(found)
    for good, bad in found:
        assert good.unit == bad.unit
        assert good.correct
        assert not bad.correct
        assert bad.verdict is not None
    assert preferences(reversed(samples), rule) == found


def test_a_pointwise_pair_is_kept_at_its_first_win() -> None:
    scores = {
        "p1": [(5.0, 5.0), (None, 2.0), (6.0, 4.0), (9.0, 1.0)],
        "p2": [(8.0, 3.0)],
        "p3": [(2.0, 9.0), (4.0, None)],
    }
    result = select_scored(scores)
    assert [(row.pair_id, row.order, row.sample) for row in result.rows] == [
        ("p1", "chosen", 2),
        ("p1", "rejected", 2),
        ("p2", "chosen", 0),
        ("p2", "rejected", 0),
    ]
    assert (result.tried, result.kept, result.keep_rate) == (3, 2, 2 / 3)
    assert result.pass_rate == 1 / 3
    assert "3 pairs judged with 14 scores, 2 of them unparsed" in empty_scored_cause(result, 2, 14)


def test_pass_rates_by_group() -> None:
    first = [("a", True), ("a", False), ("b", True), ("c", False), ("d", False)]
    assert pass_rates(first, {"a": 10, "b": 2, "c": 10, "d": None}) == {
        "2": {"value": 1.0, "n": 1},
        "10": {"value": 1 / 3, "n": 3},
        "unknown": {"value": 0.0, "n": 1},
    }
    assert list(pass_rates(first, {"a": "x", "b": "y", "c": "a", "d": "x"})) == ["a", "x", "y"]
    assert pass_rates([], {}) == {}


def test_units_that_were_right_too_late_or_too_seldom_are_not_trained_on() -> None:
    def drawn(pair: int, verdicts: str) -> list[Sample]:
        kept = verdicts.find("A")
        return [Sample(f"p{pair}", "chosen_first", i, v, v == "A", i == kept) for i, v in enumerate(verdicts)]

    samples = [*drawn(1, "ABBB"), *drawn(2, "BBBA"), *drawn(3, "BAAA"), *drawn(4, "BBBB")]
    rule = Rule(0, 1, balance=False, recipe="sft")

    def names(rule: Rule) -> set[str]:
        return {pair for pair, _ in unsure(samples, rule)}

    assert names(rule) == set()
    assert names(replace(rule, max_draws=3)) == {"p2"}
    assert names(replace(rule, max_draws=1)) == {"p2", "p3"}
    assert names(replace(rule, min_pass_rate=0.5)) == {"p1", "p2", "p4"}
    assert names(replace(rule, max_draws=1, min_pass_rate=0.5)) == {"p1", "p2", "p3", "p4"}


def test_a_pass_rate_needs_all_judgments() -> None:
    with pytest.raises(ValueError, match=r"judging\.min_pass_rate needs judging\.sampling all"):
        JudgingSettings(min_pass_rate=0.2)
    assert JudgingSettings(min_pass_rate=0.2, sampling="all").max_draws is None
    with pytest.raises(ValueError, match=r"judging\.must_name needs judging\.mode pairwise"):
        JudgingSettings(must_name=True, mode="pointwise")
    with pytest.raises(ValueError, match=r"judging\.must_agree needs judging\.mode pairwise"):
        JudgingSettings(must_agree=True, mode="pointwise")
