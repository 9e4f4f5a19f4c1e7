"""Best-of rows: which are judged how, and how letters in the shown order become indices into the row."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ray_app.base.schema import RATINGS, VOTES
from ray_app.base.settings_parts import SamplingSettings
from ray_app.benchmarks import Benchmark, BestOfRow, Faulty
from ray_app.benchmarks.rewardbench2 import shown_order
from ray_app.judging.best_of import LETTERS, BestOf, answers_of, letter_units, plurality, with_reasons
from ray_app.judging.protocol import Voting
from ray_app.metrics.rewardbench2 import best_of_outcomes, lost_of, summarise_best_of
from ray_app.run.shards import ShardWriter


def row(identity: str, subset: str = "Math", responses: int = 4) -> BestOfRow:
    return BestOfRow(identity, subset, "2 + 2?", tuple(f"answer {i}" for i in range(responses)), 1, identity)


ROWS = (*(row(f"m{i}") for i in range(20)), row("ref:1", "Ties", 6))
BENCHMARK = Benchmark("rb2", [], len(ROWS), best_of=ROWS)


def test_ties_are_rated_and_pointwise_judges_rate_everything() -> None:
    assert [r.id for r in BestOf(letters=True).by_ratings(BENCHMARK)] == ["ref:1"]
    assert len(BestOf(letters=True).by_letter(BENCHMARK)) == 20
    assert len(BestOf(letters=False).by_ratings(BENCHMARK)) == 21
    assert not BestOf(letters=False).by_letter(BENCHMARK)


def test_a_letter_names_the_response_that_was_shown_under_it() -> None:
    units = {u["id"]: u for u in letter_units("rb2", BestOf(letters=True).by_letter(BENCHMARK), seed=3)}
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


def test_every_id_has_an_answer_and_quarantined_ones_say_why(tmp_path: Path) -> None:
    rows = (row("m0"), row("m1"), row("ref:1", "Ties", 2), row("tied:1", "Ties", 3))
    benchmark = Benchmark("rb2", [], 5, (Faulty("bad", "Math", "bad", "empty_response", ""),), rows)

    def lost(unit: str) -> dict[str, str]:
        return {"id": f"rb2:{unit}", "stage": "evaluation", "reason": "prompt_too_long", "detail": ""}

    def filled(schema: Any, **fields: Any) -> dict[str, Any]:
        return dict.fromkeys(schema.names) | {"benchmark": "rb2", "sample": 0, **fields}

    with ShardWriter(str(tmp_path), VOTES) as writer:
        writer.add([filled(VOTES, id="m0", order="shown", verdict="A")])
        writer.quarantine([lost("m1:shown")])
    with ShardWriter(str(tmp_path / "ratings"), RATINGS) as writer:
        writer.add([filled(RATINGS, id="ref:1", side=side, score=score) for side, score in (("0", 9.0), ("1", 2.0))])
        writer.quarantine([lost("tied:1")])
    read = BestOf(letters=True).read(str(tmp_path), benchmark, Voting(SamplingSettings()))
    answers = with_reasons(benchmark, read)
    assert answers == {
        "m0": {"choice": shown_order(rows[0], 0)[0]},
        "m1": {"choice": None, "quarantined": "prompt_too_long"},
        "ref:1": {"ratings": [9.0, 2.0]},
        "tied:1": {"choice": None, "quarantined": "prompt_too_long"},
        "bad": {"choice": None, "quarantined": "empty_response"},
    }
    outcomes = best_of_outcomes(benchmark, answers)
    summary = summarise_best_of(benchmark, outcomes, 0, 20, unjudged=lost_of(benchmark, answers))
    assert summary["n"] == summary["n_in"] == 5
    assert summary["quarantined"] == {"empty_response": 1, "prompt_too_long": 2}
    assert summary["overall"]["unparsed_rate"]["value"] == 3 / 5
