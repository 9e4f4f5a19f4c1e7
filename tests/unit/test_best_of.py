"""Best-of rows: which are judged how, and how letters in the shown order become indices into the row."""

from __future__ import annotations

from ray_app.benchmarks import Benchmark, BestOfRow
from ray_app.benchmarks.rewardbench2 import shown_order
from ray_app.best_of import LETTERS, answers_of, by_letter, by_ratings, letter_units, plurality


def row(identity: str, subset: str = "Math", responses: int = 4) -> BestOfRow:
    return BestOfRow(identity, subset, "2 + 2?", tuple(f"answer {i}" for i in range(responses)), 1, identity)


ROWS = (*(row(f"m{i}") for i in range(20)), row("ref:1", "Ties", 6))
BENCHMARK = Benchmark("rb2", [], len(ROWS), best_of=ROWS)


def test_ties_are_rated_and_pointwise_judges_rate_everything() -> None:
    assert [r.id for r in by_ratings(BENCHMARK, pointwise=False)] == ["ref:1"]
    assert len(by_letter(BENCHMARK, pointwise=False)) == 20
    assert len(by_ratings(BENCHMARK, pointwise=True)) == 21
    assert not by_letter(BENCHMARK, pointwise=True)


def test_a_letter_names_the_response_that_was_shown_under_it() -> None:
    units = {u["id"]: u for u in letter_units("rb2", by_letter(BENCHMARK, pointwise=False), seed=3)}
    votes = {i: [LETTERS[u["responses"].index("answer 0")]] for i, u in units.items()}
    answers = answers_of(BENCHMARK, votes, {}, seed=3)
    assert {answers[i]["choice"] for i in units} == {0}, "the correct response is the row's first"
    assert len({votes[i][0] for i in units}) > 1, "it is not always shown in one place"
    third = {i: [LETTERS[u["responses"].index("answer 2")]] for i, u in units.items()}
    assert {answers_of(BENCHMARK, third, {}, seed=3)[i]["choice"] for i in units} == {2}


def test_ratings_are_in_the_order_of_the_row() -> None:
    means = {"ref:1": {str(i): float(9 - i) if i != 4 else None for i in range(6)}}
    answers = answers_of(BENCHMARK, {}, means, seed=0)
    assert answers["ref:1"] == {"ratings": [9.0, 8.0, 7.0, 6.0, None, 4.0]}
    assert answers["m0"] == {"choice": None}, "no vote, no choice"


def test_the_shown_order_is_seeded_by_the_id() -> None:
    assert all(sorted(shown_order(r, 0)) == [0, 1, 2, 3] for r in ROWS[:-1])
    assert shown_order(ROWS[0], 0) == shown_order(row("m0"), 0)


def test_plurality() -> None:
    assert plurality("ABBC") == "B"
    assert plurality("AABB") is None
    assert plurality([]) is None
    assert plurality("D") == "D"
