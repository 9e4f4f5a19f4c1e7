"""The gate: every reason for which a pair is not made, and what must pass."""

from __future__ import annotations

import pytest

from ray_app.generation.pair_gate import Gate, adds_to, length_ratio, pair_fault

QUESTION, OTHER = "Name a bird that sings at night.", "Which fish lives longest in a cold lake?"
GOOD, WORSE = "The nightingale sings at night.", "The lake trout lives longest."
ALL = Gate(heuristics=True, max_length_ratio=5)


@pytest.mark.parametrize(
    "response",
    [
        "I'm ready to help! Please provide the instruction.",
        "Hello! How can I assist you today?",
        "Sure, I'd be happy to help: what do you need?".replace("I'd be", "I'm"),
        "Please provide me with the text you would like me to rewrite.",
        "As an AI language model, I do not sing.",
        "I’m here to help you with your questions.",
    ],
)
def test_talk_about_the_talk_is_no_response(response: str) -> None:
    assert pair_fault(QUESTION, OTHER, GOOD, response, [], ALL) == "meta_talk"
    assert pair_fault(QUESTION, OTHER, response, WORSE, [], ALL) == "meta_talk"
    assert pair_fault(QUESTION, OTHER, GOOD, response, [], Gate()) is None, "only where it is asked for"


@pytest.mark.parametrize(
    "response",
    [
        "I'm sorry, but I can't help with that.",
        "I cannot provide medical advice.",
        "Unfortunately, I am unable to answer.",
    ],
)
def test_a_response_that_declines_is_no_worse_one(response: str) -> None:
    assert pair_fault(QUESTION, OTHER, GOOD, response, [], ALL) == "refusal"


@pytest.mark.parametrize(
    "modified",
    ["Here is a modified instruction: name a fish.", "Sure! Name a fish.", "The new instruction asks for a fish."],
)
def test_what_is_no_instruction(modified: str) -> None:
    assert pair_fault(QUESTION, modified, GOOD, WORSE, [], ALL) == "not_an_instruction"


def test_an_original_with_something_added_still_asks_for_the_original() -> None:
    assert pair_fault(QUESTION, f"{QUESTION[:-1]}, and say why.", GOOD, WORSE, [], ALL) == "adds_to_original"
    assert adds_to("List three fruits", "List three fruits and three vegetables")


def test_a_long_prompt_with_a_changed_sentence_passes() -> None:
    long = " ".join(f"This is sentence {i} of a long prompt." for i in range(40))
    changed = long.replace("sentence 39", "another matter, number 39,")
    assert pair_fault(long, changed, GOOD, WORSE, [], Gate(0.999, heuristics=True)) is None
    assert not adds_to(long, changed)


PLAIN = (
    "Please provide shade for young plants.",
    "Sure signs of rain are swallows flying low.",
    "Hello is what most people say first.",
    "I can sing, said the bird.",
)


@pytest.mark.parametrize("response", PLAIN)
def test_responses_that_only_begin_alike_pass(response: str) -> None:
    assert pair_fault(QUESTION, OTHER, GOOD, response, [], ALL) is None


def test_lengths_far_apart_tell_by_themselves() -> None:
    assert length_ratio("a b", "a b c d e f") == 3
    assert pair_fault(QUESTION, OTHER, GOOD, "word " * 60, [], ALL) == "lengths_apart"
    assert pair_fault(QUESTION, OTHER, GOOD, "word " * 60, [], Gate(heuristics=True)) is None


def test_the_last_turn_is_what_is_asked() -> None:
    turns = [{"role": "user", "content": "Hello"}, {"role": "user", "content": QUESTION}]
    assert pair_fault(turns, QUESTION, GOOD, WORSE, [], Gate()) == "modified_equals_original"  # type: ignore[arg-type]
