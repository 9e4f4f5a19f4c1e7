"""The judging program: what is drawn in each mode, with which seeds, and what is kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from replaying import Replay, in_turn, judgments, run

from ray_app.base.prompts import load_prompt
from ray_app.base.schema import derive_seed, pack_text
from ray_app.engine.base import Completion, EngineError, PromptTooLong, Sampling
from ray_app.generation.programs.judge import JudgeProgram
from ray_app.generation.programs.rows import judge_messages

PROMPT = load_prompt("judge_pairwise_small")
ROW = {
    "id": "p1",
    "pair_id": "p1",
    "order": "chosen_first",
    "instruction": "Name a bird.",
    "first": "A wren.",
    "second": "A carp.",
    "gold": "A",
}


def program(mode: Any = "until_correct", samples: int = 6, **more: Any) -> JudgeProgram:
    given: dict[str, Any] = {"sampling": Sampling(max_tokens=64), "key": ("pair_id", "order"), **more}
    return JudgeProgram(
        prompt=PROMPT,
        mode=mode,
        samples=samples,
        judge="the judge",
        run_seed=3,
        iteration=2,
        stage="judgments",
        **given,
    )


def judge(letters: str, row: dict[str, Any] | None = None, **settings: Any) -> tuple[Any, Replay]:
    engine = Replay(in_turn(judgments(letters)))
    (result,) = run(program(**settings), engine, row or ROW)
    return result, engine


@pytest.mark.parametrize(
    ("letters", "drawn", "kept"),
    [("AAAAAA", 1, 0), ("BB-AAA", 4, 3), ("-----A", 6, 5), ("BBBBBB", 6, None), ("------", 6, None)],
)
def test_until_correct_draws_one_by_one_until_one_is_right(letters: str, drawn: int, kept: int | None) -> None:
    result, engine = judge(letters)
    assert [row["sample"] for row in result.rows] == list(range(drawn))
    assert [row["verdict"] for row in result.rows] == [None if x == "-" else x for x in letters[:drawn]]
    assert [row["kept"] for row in result.rows] == [j == kept for j in range(drawn)]
    assert [row["correct"] for row in result.rows] == [x == "A" for x in letters[:drawn]]
    assert engine.most_running == 1
    assert engine.prepared == 1, "templated once for all samples"


@pytest.mark.parametrize(("letters", "kept"), [("BABAA-", 1), ("A-----", 0), ("BBBBBB", None)])
def test_all_draws_every_sample_at_once_and_keeps_the_first_right_one(letters: str, kept: int | None) -> None:
    result, engine = judge(letters, mode="all")
    assert engine.most_running == len(result.rows) == 6
    assert [j for j, row in enumerate(result.rows) if row["kept"]] == ([] if kept is None else [kept])


def test_the_gold_letter_is_that_of_the_order() -> None:
    row = {**ROW, "order": "rejected_first", "gold": "B"}
    assert [r["kept"] for r in judge("AAB", row)[0].rows] == [False, False, True]


@pytest.mark.parametrize(
    ("letters", "early_stop", "drawn"),
    [("AAAAA", True, 3), ("ABABA", True, 5), ("AAAAA", False, 5), ("AA-A-", True, 4), ("-----", True, 5)],
)
def test_votes_stop_when_settled_and_keep_nothing(letters: str, early_stop: bool, drawn: int) -> None:
    result, _ = judge(letters, mode="votes", samples=5, early_stop=early_stop)
    assert len(result.rows) == drawn
    assert all("kept" not in row for row in result.rows)
    assert result.counters["kept"] == 0


def test_a_row_without_gold_is_neither_right_nor_wrong() -> None:
    unlabelled = {**{k: v for k, v in ROW.items() if k != "gold"}, "benchmark": "b"}
    result, _ = judge("AB", unlabelled, mode="votes", samples=2, key=("benchmark", "id", "order"))
    assert [row["correct"] for row in result.rows] == [None, None]
    assert result.unit == "b:p1:chosen_first"
    assert result.rows[0].keys() >= {"benchmark", "id", "order"}


@pytest.mark.parametrize("mode", ["until_correct", "all", "votes"])
def test_sample_j_has_seed_j_in_every_mode(mode: Any) -> None:
    result, engine = judge("BBBBBB", mode=mode, early_stop=False)
    wanted = [derive_seed(3, 2, "judgments", "p1", "chosen_first", j) for j in range(6)]
    assert [call.seed for call in engine.calls] == [row["seed"] for row in result.rows] == wanted
    assert len(set(wanted)) == 6


def test_greedy_judging_has_no_seed() -> None:
    result, engine = judge("A", mode="votes", samples=1, sampling=Sampling(temperature=0))
    assert engine.calls[0].seed is None
    assert result.rows[0]["seed"] is None


def test_the_judge_sees_the_rendered_prompt_with_the_given_sampling() -> None:
    sampling = Sampling(0.3, 0.8, 99, ("[[A]]", "[[B]]"), True)
    _, engine = judge("A", sampling=sampling)
    assert engine.calls[0].messages == judge_messages(PROMPT, ROW)
    assert engine.calls[0].sampling == sampling


def test_rows_and_counters_say_what_it_cost() -> None:
    answers = [
        Completion("[[B]]", "stop", 50, 3),
        Completion("so long", "length", 50, 7),
        Completion("[[A]]", "stop", 50, 4),
    ]
    (result,) = run(program(), Replay(in_turn(answers)), ROW)
    assert result.unit == program().unit_of(ROW) == "p1:chosen_first"
    assert result.counters == {
        "samples": 3,
        "unparsed": 1,
        "cut_in_reasoning": 0,
        "kept": 1,
        "prompt_tokens": 150,
        "completion_tokens": 14,
    }
    assert [row["finish_reason"] for row in result.rows] == ["stop", "length", "stop"]
    assert {row["judge"] for row in result.rows} == {"the judge"}
    assert [row["text"] for row in result.rows] == ["[[B]]", "so long", "[[A]]"]
    (bare,) = run(program(keep_text=False), Replay(in_turn(answers)), ROW)
    assert {row["text"] for row in bare.rows} == {""}
    assert bare.counters == result.counters


def test_a_verdict_in_the_reasoning_is_none() -> None:
    answers = ["<think>surely [[A]]", "<think>[[B]]</think>[[A]]"]
    (result,) = run(program(samples=2), Replay(in_turn(answers)), ROW)
    assert [row["verdict"] for row in result.rows] == [None, "A"]


def test_faults_of_the_row_and_the_engine_are_the_callers() -> None:
    with pytest.raises(PromptTooLong):
        run(program(), Replay(in_turn([]), limit=10), ROW)
    with pytest.raises(EngineError):
        run(program(mode="all", samples=2), Replay(in_turn(["[[A]]", EngineError("gone")])), ROW)


def test_texts_cut_inside_their_reasoning_are_counted() -> None:
    stop = Sampling(max_tokens=64, stop=("[[A]]", "[[B]]"), include_stop=True)
    texts = ["<think>\nIs it [[A]]", "<think>\nstill", "no verdict", "<think>so</think> [[B]]", "it is [[B]]"]
    engine = Replay(in_turn(texts))
    (result,) = run(program(samples=5, sampling=stop), engine, ROW)
    assert [row["verdict"] for row in result.rows] == [None, None, None, "B", "B"]
    assert (result.counters["cut_in_reasoning"], result.counters["unparsed"]) == (1, 3)


@pytest.mark.parametrize("mode", ["until_correct", "all"])
def test_a_kept_judgment_says_enough(mode: str) -> None:
    """A bare verdict is right, and no judgment to learn from: drawing goes on without it."""
    answers = [
        "[[A]]",
        "So. [[A]]",
        "[[B]] because it is longer",
        "A names a bird. [[A]]",
        "A names another bird. [[A]]",
    ]
    told = answers if mode == "all" else answers[:4]
    (result,) = run(program(mode=mode, samples=5, min_words=4), Replay(in_turn(told)), ROW)
    assert [row["kept"] for row in result.rows] == [answer == "A names a bird. [[A]]" for answer in told]
    assert [row["correct"] for row in result.rows][:3] == [True, True, False], "what is correct does not depend on it"
    (nothing,) = run(program(mode=mode, samples=2, min_words=4), Replay(in_turn(answers[:2])), ROW)
    assert (nothing.counters["kept"], nothing.counters["samples"]) == (0, 2)


@pytest.mark.parametrize("mode", ["until_correct", "all"])
@pytest.mark.parametrize("packed", [str, lambda text: pack_text([{"role": "assistant", "content": text}])])
def test_a_kept_judgment_names_a_response(mode: str, packed: Callable[[str], str]) -> None:
    """What fits any two responses is right, and is drawn past; a word of the prompt's own marks is no name."""
    row = ROW | {side: packed(ROW[side]) for side in ("first", "second")}
    answers = ["It is the more relevant. [[A]]", "A carp. [[B]]", "The assistant names it. [[A]]", "A wren. [[A]]"]
    (result,) = run(program(mode=mode, samples=4, must_name=True), Replay(in_turn(answers)), row)
    assert [row["kept"] for row in result.rows] == [False, False, False, True]
    alike = row | {side: packed("Yes.") for side in ("first", "second")}
    (told,) = run(program(mode=mode, samples=4, must_name=True), Replay(in_turn(answers)), alike)
    assert told.rows[0]["kept"], "nothing tells these apart"
    (short,) = run(program(mode=mode, samples=4, must_name=True, min_words=3), Replay(in_turn(answers)), row)
    assert short.counters["kept"] == 0


@pytest.mark.parametrize("mode", ["until_correct", "all"])
def test_a_kept_judgment_does_not_call_the_other_response_better(mode: str) -> None:
    answers = ["Response B is better. [[A]]", "Response B is better. [[B]]", "The first response is better. [[A]]"]
    (result,) = run(program(mode=mode, samples=3, must_agree=True), Replay(in_turn(answers)), ROW)
    assert [row["kept"] for row in result.rows] == [False, False, True]
    assert [row["correct"] for row in result.rows] == [True, False, True], "what is correct does not depend on it"
    (silent,) = run(program(mode=mode, samples=1, must_agree=True), Replay(in_turn(["A wren. [[A]]"])), ROW)
    assert silent.rows[0]["kept"], "it calls neither better"


def test_votes_are_read_by_the_parser_that_was_named() -> None:
    texts = ["[[A]], no: [[B]]", "[[B]]", "[[B]]"]
    rows = {}
    for parser in ("last", "rewardbench", "self_taught"):
        engine = Replay(in_turn(texts))
        (result,) = run(program("votes", 3, parser=parser, early_stop=False), engine, ROW)
        rows[parser] = [row["verdict"] for row in result.rows]
    assert rows == {"last": ["B", "B", "B"], "rewardbench": ["A", "B", "B"], "self_taught": [None, "B", "B"]}
