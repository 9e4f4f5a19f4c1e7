"""The pair program: what is asked in each strategy, and every reason for which a pair is not made."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from replaying import Call, Replay, run

from ray_app.base.ngrams import Contamination
from ray_app.base.prompts import load_prompt
from ray_app.base.schema import PAIRS, derive_seed, pack_text, pair_id
from ray_app.engine.base import Completion, EngineError, Sampling, UnitResult
from ray_app.generation.pair_gate import Gate, pair_fault
from ray_app.generation.pair_texts import similarity
from ray_app.generation.programs.pair import PairProgram, clean_modified

QUESTION, OTHER = "Name a bird that sings at night.", "Which fish lives longest in a cold lake?"
ROW = {
    "instruction_id": "i1",
    "text": QUESTION,
    "split": "train",
    "category": "other",
    "complexity": 2,
}
GOOD = {"chosen": "The nightingale.", "modified": OTHER, "rejected": "The lake trout."}


def program(
    strategy: str = "modified_instruction", one_call: bool = False, gate: dict[str, Any] | None = None, **more: Any
) -> PairProgram:
    given: dict[str, Any] = {
        "sampling": Sampling(0.7, 0.9, 100),
        "modify_sampling": Sampling(0.9, 1, 50),
        "gate": Gate(**(gate or {})),
        **more,
    }
    return PairProgram(
        strategy=strategy,
        one_call=one_call,
        modify=load_prompt("modify_instruction"),
        modify_and_respond=load_prompt("modify_and_respond"),
        worse=load_prompt("worse_response"),
        generator="the generator",
        run_seed=5,
        iteration=1,
        **given,
    )


def purpose(call: Call) -> str:
    """What a request is for, from its prompt."""
    if "Write another response" in call.prompt:
        return "rejected"
    if "new instruction" in call.prompt or "modified instruction" in call.prompt:
        return "modified"
    return "chosen" if QUESTION in call.prompt else "rejected"


def make(row: dict[str, Any] = ROW, settings: PairProgram | None = None, **answers: Any) -> tuple[UnitResult, Replay]:
    told = {**GOOD, **answers}
    engine = Replay(lambda call: told[purpose(call)])
    (result,) = run(settings or program(), engine, row)
    return result, engine


def two_parts(instruction: str, response: str) -> str:
    return (
        f"Sure.\n<modified_instruction>\n{instruction}\n</modified_instruction>\n\n"
        f"<modified_response>\n{response}\n</modified_response>"
    )


def test_two_calls_answer_the_instruction_and_another_one() -> None:
    result, engine = make()
    assert not result.quarantine
    (pair,) = result.rows
    assert pair == {
        "pair_id": pair_id(QUESTION, GOOD["chosen"], GOOD["rejected"], "modified_instruction", "the generator"),
        "instruction_id": "i1",
        "instruction": QUESTION,
        "modified_instruction": OTHER,
        "chosen": "The nightingale.",
        "rejected": "The lake trout.",
        "generator": "the generator",
        "strategy": "modified_instruction",
        "split": "train",
        "category": "other",
        "complexity": 2,
        "group": "i1",
        "mirror": None,
    }
    assert set(pair) == set(PAIRS.names)
    calls = {purpose(call): call for call in engine.calls}
    assert calls["chosen"].messages == [{"role": "user", "content": QUESTION}]
    assert calls["rejected"].messages == [{"role": "user", "content": OTHER}], "it never sees the original"
    assert QUESTION in calls["modified"].prompt
    assert calls["modified"].sampling == Sampling(0.9, 1, 50)
    assert calls["chosen"].sampling == calls["rejected"].sampling == Sampling(0.7, 0.9, 100)
    assert engine.most_running == 2, "the answer and the modified instruction are asked side by side"


def test_one_call_writes_both_parts_after_the_good_answer() -> None:
    result, engine = make(settings=program(one_call=True), modified=two_parts(OTHER, "The lake trout."))
    assert (result.rows[0]["modified_instruction"], result.rows[0]["rejected"]) == (OTHER, "The lake trout.")
    assert [purpose(call) for call in engine.calls] == ["chosen", "modified"]
    assert "The nightingale." in engine.calls[1].prompt
    assert result.counters["samples"] == 2


def test_worse_response_shows_the_good_one_and_has_no_modified_instruction() -> None:
    result, engine = make(settings=program("worse_response"))
    (pair,) = result.rows
    assert (pair["modified_instruction"], pair["strategy"]) == ("", "worse_response")
    assert [purpose(call) for call in engine.calls] == ["chosen", "rejected"]
    assert "The nightingale." in engine.calls[1].prompt
    assert pair["pair_id"] != make()[0].rows[0]["pair_id"]


def test_seeds_are_those_of_the_instruction_and_the_purpose() -> None:
    _, engine = make()
    wanted = {name: derive_seed(5, 1, "pairs", "i1", name, 0) for name in ("chosen", "modified", "rejected")}
    assert {purpose(call): call.seed for call in engine.calls} == wanted
    _, greedy = make(settings=program(sampling=Sampling(temperature=0)))
    assert {purpose(c): c.seed for c in greedy.calls} == {
        "chosen": None,
        "rejected": None,
        "modified": wanted["modified"],
    }


def test_counters_add_up_also_where_the_pair_is_dropped() -> None:
    for answers in ({}, {"rejected": "The nightingale!"}):
        result, _ = make(**answers)
        words = sum(len(str({**GOOD, **answers}[name]).split()) for name in GOOD)
        assert result.counters == {"samples": 3, "prompt_tokens": 30, "completion_tokens": words}
        assert len(result.rows) + len(result.quarantine) == 1


def cut(text: str) -> Completion:
    return Completion(text, "length", 1, 1)


@pytest.mark.parametrize(
    ("answers", "reason"),
    [
        ({"modified": ""}, "no_modified_instruction"),
        ({"modified": '""'}, "no_modified_instruction"),
        ({"modified": "<think>what to ask"}, "no_modified_instruction"),
        ({"chosen": " \n"}, "empty_response"),
        ({"rejected": ""}, "empty_response"),
        ({"chosen": "<think>so"}, "empty_response"),
        ({"chosen": cut("The night")}, "cut_off_chosen"),
        ({"modified": cut("Which fish lives")}, "cut_off_modified"),
        ({"rejected": cut("The lake")}, "cut_off_rejected"),
        ({"rejected": "the NIGHTINGALE"}, "equal_responses"),
        ({"modified": "Name a bird that sings at night!"}, "modified_equals_original"),
    ],
)
def test_every_reason_of_a_pair_that_is_not_made(answers: dict[str, Any], reason: str) -> None:
    result, engine = make(**answers)
    assert result.rows == []
    (lost,) = result.quarantine
    assert (lost["id"], lost["stage"], lost["reason"]) == ("i1", "pairs", reason)
    assert "chosen" in lost["detail"]
    asked = [purpose(call) for call in engine.calls]
    assert ("rejected" in asked) == (reason != "no_modified_instruction"), "no answer to an instruction that is none"


@pytest.mark.parametrize(
    "text", ["no parts at all", "<modified_instruction>x</modified_instruction>", two_parts("", "x")]
)
def test_one_call_without_its_two_parts_makes_no_pair(text: str) -> None:
    result, _ = make(settings=program(one_call=True), modified=text)
    assert result.quarantine[0]["reason"] == "no_modified_instruction"
    empty, _ = make(settings=program(one_call=True), modified=two_parts(OTHER, ""))
    assert empty.quarantine[0]["reason"] == "empty_response"


def test_the_similarity_that_is_too_much_is_a_setting() -> None:
    near = "Name a bird that sings at noon."
    between = similarity(QUESTION, near)
    assert 0 < between < 1
    assert make(settings=program(gate={"max_similarity": between}), modified=near)[0].rows
    lost = make(settings=program(gate={"max_similarity": between - 0.01}), modified=near)[0].quarantine
    assert lost[0]["reason"] == "modified_equals_original"
    # The other strategy has no modified instruction to compare.
    assert make(settings=program("worse_response", gate={"max_similarity": 0.01}))[0].rows


def test_reasoning_is_no_part_of_an_answer() -> None:
    result, _ = make(chosen="<think>A bird, so</think> The nightingale.", rejected="</think>\nThe lake trout.")
    assert (result.rows[0]["chosen"], result.rows[0]["rejected"]) == ("The nightingale.", "The lake trout.")


def test_an_instruction_of_several_turns_is_answered_as_a_conversation() -> None:
    turns: Any = [
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hi!"},
        {"role": "user", "content": QUESTION},
    ]
    result, engine = make({**ROW, "text": pack_text(turns)})
    assert result.rows[0]["instruction"] == pack_text(turns)
    assert engine.calls[0].messages == turns
    assert "User: Hello" in next(c for c in engine.calls if purpose(c) == "modified").prompt
    # The last turn is what a modified instruction is compared with.
    assert pair_fault(turns, QUESTION, "a", "b", [], Gate()) == "modified_equals_original"


def test_control_tokens_in_an_instruction_are_neutralised() -> None:
    _, engine = make({**ROW, "text": QUESTION + "<|im_end|><|im_start|>system"})
    assert all("<|im_end|>" not in call.prompt for call in engine.calls)


def test_faults_of_the_engine_are_the_callers() -> None:
    with pytest.raises(EngineError):
        make(rejected=EngineError("gone"))


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("Name a fish.", "Name a fish."),
        ("<instruction>\nName a fish.\n</instruction>", "Name a fish."),
        ("<modified_instruction>Name a fish.</modified_instruction>", "Name a fish."),
        ("**New instruction:** Name a fish.", "Name a fish."),
        ("Modified instruction: Name a fish.", "Name a fish."),
        ("new instruction\nName a fish.", "Name a fish."),
        ('"Name a fish."', "Name a fish."),
        ('Say "fish"', 'Say "fish"'),
        ('"', '"'),
        ("", ""),
    ],
)
def test_a_modified_instruction_loses_what_models_put_around_it(text: str, wanted: str) -> None:
    assert clean_modified(text) == wanted


@pytest.mark.parametrize(
    ("a", "b", "wanted"),
    [
        ("a b c d", "A, b. c d!", 1),
        ("a b c d", "e f g h", 0),
        ("a b c d", "a b c e", 1 / 3),
        ("one two", "two one", 0),
        ("one", "one two three four", 1 / 4),
        ("", "", 1),
        ("?!", "", 1),
        ("", "words", 0),
    ],
)
def test_similarity_of_texts(a: str, b: str, wanted: float) -> None:
    assert similarity(a, b) == pytest.approx(wanted)


WORDS = st.lists(st.sampled_from(["bird", "fish", "tree", "Bird", "a"]), max_size=8).map(" ".join)


@given(WORDS, WORDS)
def test_similarity_is_symmetric_and_one_for_the_same(a: str, b: str) -> None:
    assert similarity(a, b) == similarity(b, a)
    assert 0 <= similarity(a, b) <= 1
    assert similarity(a, a) == 1


def test_a_modified_instruction_of_a_benchmark_is_no_pair() -> None:
    grams = Contamination(13, min_words=5)
    grams.add(["which fish lives longest"])
    assert make(settings=program(contamination=grams))[0].rows, "four words are too few"
    grams.add(["which fish lives longest in a lake", "lives longest in a cold lake"])
    result, _ = make(settings=program(contamination=grams, mirror=True))
    assert not result.rows
    assert [(lost["id"], lost["reason"]) for lost in result.quarantine] == [("i1", "contaminated_modified")]
    assert OTHER in result.quarantine[0]["detail"]
    assert make(settings=program("worse_response", contamination=grams))[0].rows


def test_a_mirror_is_the_other_pair_of_the_same_responses() -> None:
    result, _ = make(settings=program(mirror=True))
    pair, other = result.rows
    assert (other["instruction"], other["modified_instruction"]) == (OTHER, QUESTION)
    assert (other["chosen"], other["rejected"]) == (pair["rejected"], pair["chosen"])
    assert (pair["mirror"], other["mirror"]) == (other["pair_id"], pair["pair_id"])
    assert {(row["group"], row["instruction_id"], row["split"]) for row in result.rows} == {("i1", "i1", "train")}
    (alone,) = make(settings=program("worse_response", mirror=True))[0].rows
    assert alone["mirror"] is None, "a response that was written worse answers no other instruction"


def test_pairs_that_words_tell_both_ways_are_left_out_where_that_is_asked_for() -> None:
    """More words in the better one of both, or fewer: either way counting them is enough."""
    bird, fish = "A bird of the night: the nightingale.", "The fish of a cold lake: the trout."
    for chosen, rejected, kept in ((bird, fish, 0), (fish, bird, 0), (bird, "Trout.", 2), ("Owl.", "Trout.", 2)):
        result, _ = make(settings=program(gate={"beyond_words": True}, mirror=True), chosen=chosen, rejected=rejected)
        assert [lost["reason"] for lost in result.quarantine] == ["words_tell"] * (not kept)
        assert len(result.rows) == kept
    assert len(make(settings=program(mirror=True), chosen=bird, rejected=fish)[0].rows) == 2


def test_a_mirror_is_gated_in_its_own_direction() -> None:
    """The answer to the longer original also does what the shorter modified instruction asks."""
    added, plain = "Name a bird that sings at night", "Name a bird"
    row = {**ROW, "text": added}
    answers = {"modified": plain, "chosen": "The nightingale sings.", "rejected": "The trout swims."}
    engine = Replay(lambda call: answers["modified" if "new instruction" in call.prompt else purpose_of[call.prompt]])
    purpose_of = {added: "chosen", plain: "rejected"}
    gate = {"heuristics": True}
    (single,) = run(program(gate=gate), engine, row)
    assert len(single.rows) == 1
    (both,) = run(program(gate=gate, mirror=True), engine, row)
    assert [lost["reason"] for lost in both.quarantine] == ["adds_to_original"]
    assert make(settings=program(gate=gate, mirror=True))[0].rows


def test_the_original_is_not_asked_whether_it_is_an_instruction_for_the_mirrors_sake() -> None:
    row = {**ROW, "text": "Birds of the night"}
    answers = {"Birds of the night": "The nightingale sings.", OTHER: "The trout swims."}
    engine = Replay(lambda call: OTHER if "new instruction" in call.prompt else answers[call.prompt])
    (result,) = run(program(gate={"heuristics": True}, mirror=True), engine, row)
    assert len(result.rows) == 2


@pytest.mark.parametrize("strategy", ["modified_instruction", "worse_response"])
@pytest.mark.parametrize("side", ["chosen", "rejected"])
def test_a_response_of_a_benchmark_is_no_pair(strategy: str, side: str) -> None:
    grams = Contamination(6, min_words=3)
    grams.add(["what does a bird of the far north eat", "a bird sings"])
    checking = program(strategy, contamination=grams)
    result, _ = make(settings=checking, **{side: "Ask me what does a bird of a tree eat."})
    assert result.rows, "five words in a row are too few"
    result, _ = make(settings=checking, **{side: "Ask me what does a bird of the far north eat."})
    assert [(lost["id"], lost["reason"]) for lost in result.quarantine] == [("i1", "contaminated_response")]
    assert make(settings=checking, **{side: "There a bird sings."})[0].rows, "a short prompt in a long text is chance"
