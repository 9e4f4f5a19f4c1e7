"""What judgments say besides their verdict."""

from __future__ import annotations

from ray_app.base.ngrams import words
from ray_app.judging.said import Said, names_one

PARIS, LYON = "The capital of France is Paris.", "The capital of France is Lyon."


def test_bare_verdicts_phrases_and_names_are_counted() -> None:
    said = Said()
    for text in (
        "[[A]]",
        "Response A names Paris, which is right. [[A]]",
        "Response A is the better one. [[A]]",
        "Response A is the better one. [[B]]",
    ):
        said.see(text, (PARIS, LYON))
    found = said.numbers()
    assert found["bare_verdicts"] == 0.25
    assert found["distinct_explanations"] == 2 / 3
    assert found["naming_explanations"] == 0.25
    assert found["explanation_words_median"] == 6


def test_a_word_that_both_have_names_none() -> None:
    assert names_one(words("it says Lyon"), PARIS, LYON)
    assert not names_one(words("the capital of France"), PARIS, LYON)
    assert not names_one(words("is it so"), "so it is", "no")  # short words are in every text


def test_without_responses_nothing_is_said_of_names() -> None:
    said = Said()
    said.see("Because. [[A]]")
    assert "naming_explanations" not in said.numbers()
    assert Said().numbers()["bare_verdicts"] is None
