"""Rankings from verdicts on couples: wins, ties, what is not known, and both kinds of judge."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_app.judging.pairwise import Pairwise
from ray_app.judging.pointwise import Pointwise
from ray_app.judging.ranking import Ranking, couples, ordered, ranking


def verdict(name: str | None, **more: Any) -> dict[str, Any]:
    return {"id": "x", "verdict": name, **more}


def test_every_win_is_a_point_and_what_is_not_settled_a_half() -> None:
    records = {(0, 1): verdict("B"), (0, 2): verdict(None), (1, 2): verdict("A")}
    found = ranking("r", 3, records, Pairwise())
    assert found.scores == (0.25, 1.0, 0.25)
    assert found.order == (1, 0, 2)
    assert found.best == 1
    assert found.tied == ()
    assert found.record() == {"id": "r", "best": 1, "order": [1, 0, 2], "scores": [0.25, 1.0, 0.25], "tied": []}


def test_a_best_that_only_stood_first_says_so() -> None:
    found = ranking("r", 3, dict.fromkeys(couples(3, Pairwise()), verdict(None)), Pairwise())
    assert (found.best, found.tied) == (0, (1, 2))


def test_a_pair_that_could_not_be_judged_gives_no_points() -> None:
    lost = verdict(None, quarantined="prompt_too_long")
    found = ranking("r", 2, {(0, 1): lost}, Pairwise())
    assert (found.scores, found.quarantined, found.order) == ((None, None), "prompt_too_long", (0, 1))
    found = ranking("r", 3, {(0, 1): lost, (0, 2): verdict("B"), (1, 2): lost}, Pairwise())
    assert found.scores == (0.0, None, 1.0)
    assert found.order == (2, 0, 1), "what is not known comes last"


def test_a_row_that_could_not_be_ranked_has_no_best() -> None:
    found = Ranking("r", (), (), "too_few_responses")
    assert found.record() == {
        "id": "r", "best": None, "order": [], "scores": [], "tied": [], "quarantined": "too_few_responses",
    }  # fmt: skip


def test_a_pointwise_judge_scores_each() -> None:
    def scored(a: float | None, b: float | None) -> dict[str, Any]:
        return verdict("A", scores={"a": a, "b": b})

    assert couples(5, Pointwise()) == [(0, 1), (2, 3), (4, 0)]
    found = ranking("r", 5, {(0, 1): scored(3, 8), (2, 3): scored(9, None), (4, 0): scored(8, 3)}, Pointwise())
    assert found.scores == (3, 8, 9, None, 8)
    assert found.order == (2, 1, 4, 0, 3)


@pytest.mark.parametrize("count", range(2, 9))
def test_every_response_is_asked_about(count: int) -> None:
    assert couples(count, Pairwise()) == list(combinations(range(count), 2))
    seen = [index for couple in couples(count, Pointwise()) for index in couple]
    assert set(seen) == set(range(count))
    assert len(seen) <= count + 1


@given(st.permutations(range(6)))
def test_a_judge_that_knows_the_order_gives_it_back(order: list[int]) -> None:
    place = {response: rank for rank, response in enumerate(order)}
    records = {(i, j): verdict("A" if place[i] < place[j] else "B") for i, j in couples(6, Pairwise())}
    assert list(ranking("r", 6, records, Pairwise()).order) == order


@given(st.lists(st.none() | st.floats(0, 10)))
def test_the_order_is_a_permutation(scores: list[float | None]) -> None:
    assert sorted(ordered(scores)) == list(range(len(scores)))
