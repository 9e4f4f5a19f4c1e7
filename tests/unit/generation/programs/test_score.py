"""The pointwise program: k scored samples of every side, or samples until the chosen side wins."""

from __future__ import annotations

from typing import Any

import pytest
from replaying import Replay, in_turn, run

from ray_app.base.prompts import load_prompt
from ray_app.base.schema import SCORES, derive_seed
from ray_app.engine.base import EngineError, PromptTooLong, Sampling
from ray_app.generation.programs.score import ScoreProgram

ROW = {
    "id": "p1",
    "pair_id": "p1",
    "instruction": "Name a bird.",
    "sides": ["chosen", "rejected"],
    "responses": ["A wren. [[10]]", "A brick."],
}


def program(samples: int = 3, **more: Any) -> ScoreProgram:
    given: dict[str, Any] = {"sampling": Sampling(max_tokens=50), **more}
    return ScoreProgram(
        prompt=load_prompt("judge_single"), samples=samples, judge="j", run_seed=1, iteration=2, stage="scores", **given
    )


def test_every_sample_of_every_side_is_a_row_scored_or_not() -> None:
    engine = Replay(in_turn(["Fine. [[7]]", "[[2]]", "Well, [[11]]", "[[1]]", "[[3]] or rather [[9]]", "[[4]]"]))
    (result,) = run(program(), engine, ROW)
    assert [(row["side"], row["sample"], row["score"]) for row in result.rows] == [
        ("chosen", 0, 7),
        ("rejected", 0, 2),
        ("chosen", 1, None),
        ("rejected", 1, 1),
        ("chosen", 2, 9),
        ("rejected", 2, 4),
    ]
    assert set(result.rows[0]) == set(SCORES.names) - {"token_ids"}, "which only what is trained on keeps"
    (kept,) = run(program(keep_tokens=True), Replay(in_turn(["[[7]]"] * 6)), ROW)
    assert set(kept.rows[0]) == set(SCORES.names)
    assert result.unit == program().unit_of(ROW) == "p1"
    assert (result.counters["samples"], result.counters["unparsed"], result.counters["kept"]) == (6, 1, 0)
    assert (engine.prepared, engine.most_running) == (2, 6)


def test_until_correct_stops_at_the_first_win() -> None:
    engine = Replay(in_turn(["[[5]]", "[[5]]", "none", "[[1]]", "[[6]]", "[[4]]", "[[9]]", "[[1]]"]))
    (result,) = run(program(4, mode="until_correct"), engine, ROW)
    assert [row["score"] for row in result.rows] == [5, 5, None, 1, 6, 4]
    assert result.counters["kept"] == 1
    (lost,) = run(program(2, mode="until_correct"), Replay(lambda _: "[[5]]"), ROW)
    assert (len(lost.rows), lost.counters["kept"]) == (4, 0)


def test_seeds_are_those_of_the_side_and_the_sample() -> None:
    engine = Replay(lambda _: "[[5]]")
    (result,) = run(program(), engine, ROW)
    wanted = [derive_seed(1, 2, "scores", "p1", side, j) for j in range(3) for side in ("chosen", "rejected")]
    assert [row["seed"] for row in result.rows] == [call.seed for call in engine.calls] == wanted
    assert len(set(wanted)) == 6
    (greedy,) = run(program(sampling=Sampling(temperature=0)), engine, ROW)
    assert {row["seed"] for row in greedy.rows} == {None}


def test_a_score_inside_the_response_is_not_shown_as_one() -> None:
    engine = Replay(lambda _: "[[5]]")
    run(program(1), engine, ROW)
    assert "[[10]]" not in engine.calls[0].prompt
    assert "A wren." in engine.calls[0].prompt


def test_faults_are_the_callers() -> None:
    with pytest.raises(PromptTooLong):
        run(program(), Replay(lambda _: "[[5]]", limit=10), ROW)
    with pytest.raises(EngineError):
        run(program(), Replay(lambda _: EngineError("gone")), ROW)
