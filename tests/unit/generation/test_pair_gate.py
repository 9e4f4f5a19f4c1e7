"""The gate: every reason for which a pair is not made, and what must pass."""

from __future__ import annotations

import pytest

from ray_app.base.ngrams import Contamination
from ray_app.generation.pair_gate import Gate, contamination_fault, pair_fault
from ray_app.generation.pair_texts import adds_to, another_language, language_of, length_ratio, similarity

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


def test_responses_that_are_nearly_the_same_have_no_better_one() -> None:
    long = "The nightingale is a small brown bird that sings at night in woods and hedges of the south. " * 3
    assert pair_fault(QUESTION, OTHER, long, long + "Yes.", [], ALL) == "nearly_equal_responses"
    assert pair_fault(QUESTION, OTHER, long, long + "Yes.", [], Gate()) is None
    assert pair_fault(QUESTION, None, long + "It is 12.", long + "It is 13.", [], ALL) is None, "one figure is wrong"


def test_an_original_with_something_added_still_asks_for_the_original() -> None:
    assert pair_fault(QUESTION, f"{QUESTION[:-1]}, and say why.", GOOD, WORSE, [], ALL) == "adds_to_original"
    assert adds_to("List three fruits", "List three fruits and three vegetables")

    assert pair_fault(QUESTION, f"In one word: {QUESTION}", GOOD, WORSE, [], ALL) == "adds_to_original"
    stated = f"{QUESTION} " + "The nightingale is a small brown bird of the old world. " * 2
    assert adds_to(QUESTION, stated), "nothing besides the original asks"


LONG = " ".join(f"This is sentence {i} of a long prompt." for i in range(40))


def test_a_long_prompt_with_a_changed_sentence_passes() -> None:
    changed = LONG.replace("This is sentence 20 of a long", "Leave out whatever speaks of a wet")
    assert similarity(LONG, changed) > 0.9
    assert pair_fault(LONG, changed, GOOD, WORSE, [], Gate(heuristics=True)) is None
    at_end = f"{LONG.removesuffix('This is sentence 39 of a long prompt.')}Leave out all even ones."
    assert pair_fault(LONG, at_end, GOOD, WORSE, [], Gate()) is None


def test_a_long_prompt_with_words_changed_here_and_there_is_the_same() -> None:
    changed = LONG.replace("sentence 20", "line 20").replace("sentence 30", "line 30")
    assert similarity(LONG, changed) > 0.9
    assert pair_fault(LONG, changed, GOOD, WORSE, [], Gate()) == "modified_equals_original"


@pytest.mark.parametrize(
    ("original", "modified", "same"),
    [
        ("Are there polar bears in Antarctica?", "Is there a polar bear in Antarctica?", True),
        ("Which rivers fed the first cities?", "Please answer: what rivers fed the first cities?", True),
        ("Who built the first steam engine?", "When was the first steam engine built?", False),
        ("Name foods that I can eat raw.", "Name foods that I must not eat raw.", False),
        ("She pays 20 for 3 books. What is one?", "She pays 24 for 3 books. What is one?", False),
    ],
)
def test_a_rephrased_instruction_has_the_same_words(original: str, modified: str, same: bool) -> None:
    assert pair_fault(original, modified, GOOD, WORSE, [], ALL) == ("rephrases_original" if same else None)


@pytest.mark.parametrize(
    ("original", "modified", "fault"),
    [
        (QUESTION, "The nightingale is a bird that sings at night.", "not_an_instruction"),
        (QUESTION, "A perfect response must name a fish.", "not_an_instruction"),
        (QUESTION, "The correct answer is: the nightingale.", "not_an_instruction"),
        (QUESTION, "I want a list of fish.", None),
        (QUESTION, "Sort these birds by size: owl, wren, crane", None),
        ("Photosynthesis in deserts", "Photosynthesis at the sea floor", None),  # what form it has is not known
        ("Rewrite the original instruction.", "Shorten the original instruction: please translate it too.", None),
    ],
)
def test_a_modified_instruction_asks_where_the_original_does(original: str, modified: str, fault: str | None) -> None:
    assert pair_fault(original, modified, GOOD, WORSE, [], ALL) == fault


@pytest.mark.parametrize(
    ("modified", "fault"),
    [
        ("Nenne einen Fisch, der in einem See lebt und nicht klein ist.", "another_language"),
        ("Назови рыбу, которая живёт в озере.", "another_language"),
        ("湖に住む魚の名前は何ですか。", "another_language"),
        ("Name the largest fish in the lake, and the smallest of them.", None),
    ],
)
def test_a_modified_instruction_is_of_the_same_language(modified: str, fault: str | None) -> None:
    original = "Name a bird that sings at night, and is not the owl of the wood."
    assert pair_fault(original, modified, GOOD, WORSE, [], ALL) == fault
    assert language_of("Quack!") is None
    assert language_of("Hãy viết một bài thơ về ông của tôi.") == "vi"
    assert language_of("import re\nfrom os import path\nfrom json import loads\n") in (None, "en")
    assert not another_language("Quack!", modified)


def test_a_response_that_repeats_its_instruction_is_no_answer() -> None:
    said = "Which fish lives longest in a cold lake, that is the question."
    assert (
        pair_fault(QUESTION, OTHER, GOOD, said.replace(", that is the question", ""), [], ALL) == "echoes_instruction"
    )
    assert pair_fault(QUESTION, OTHER, QUESTION, WORSE, [], ALL) == "echoes_instruction"
    passage = "Where does the trout live? " + LONG + " The trout lives in cold lakes."
    assert pair_fault(QUESTION, passage, GOOD, "The trout lives in cold lakes.", [], ALL) is None, "a quotation"


@pytest.mark.parametrize(
    ("response", "fault"),
    [
        ("That is a lovely thought. I'm always here to help you with more.", "meta_talk"),
        ("I'm a helpful AI, and I like fish.", "meta_talk"),
        ("The original instruction is correct.", "meta_talk"),
        ("The lake trout lives longest. " * 12 + "I'm happy to help with more.", None),  # a closing word
    ],
)
def test_an_offer_of_help_counts_at_the_beginning(response: str, fault: str | None) -> None:
    gate = Gate(heuristics=True)
    assert pair_fault(QUESTION, OTHER, GOOD, response, [], gate) == fault


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


def test_a_real_instruction_is_one_in_whatever_form_and_language() -> None:
    for other in ("Birds of the night", "Nenne einen Fisch, der in einem See lebt und nicht klein ist."):
        assert pair_fault(QUESTION, other, GOOD, WORSE, [], ALL) in ("not_an_instruction", "another_language")
        assert pair_fault(QUESTION, other, GOOD, WORSE, [], ALL, written=False) is None
    added = f"{QUESTION[:-1]}, and say why."
    assert pair_fault(QUESTION, added, GOOD, WORSE, [], ALL, written=False) == "adds_to_original"


def test_what_is_written_may_share_no_text_with_a_benchmark() -> None:
    known = Contamination(6, min_words=3)
    known.add(["Which of these birds can sing under water?", "name a bird"])
    shared = "He asked which of these birds can sing, and nobody knew."
    assert contamination_fault(known, shared, GOOD, WORSE) == "contaminated_modified"
    assert contamination_fault(known, "Please name a bird that swims.", GOOD, WORSE) == "contaminated_modified"
    for responses in ((shared, WORSE), (GOOD, shared)):
        assert contamination_fault(known, OTHER, *responses) == "contaminated_response"
        assert contamination_fault(known, None, *responses) == "contaminated_response"
        assert contamination_fault(None, shared, *responses) is None
    assert contamination_fault(known, OTHER, "I would name a bird.", WORSE) is None, "a few words stand by chance"
