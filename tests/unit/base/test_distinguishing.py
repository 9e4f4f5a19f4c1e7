"""Words that only one of two responses has."""

from __future__ import annotations

from ray_app.base.distinguishing import names_one
from ray_app.base.ngrams import words

PARIS, LYON = "The capital of France is Paris.", "The capital of France is Lyon."


def test_a_word_that_both_have_names_none() -> None:
    assert names_one(words("it says Lyon"), PARIS, LYON)
    assert not names_one(words("the capital of France"), PARIS, LYON)
    assert not names_one(words("is it so"), "so it is", "no")  # short words are in every text


def test_what_would_be_said_of_any_two_responses_names_none() -> None:
    """That one of them happens to hold such a word changes nothing."""
    first, second = "You're correct, I should have ended my response earlier. Answer: Lyon", "Paris"
    assert not names_one(words("You're correct, I should have ended my response with"), first, second)
    assert not names_one(words("The best answer is"), first, second)
    assert names_one(words("You're correct, it is Lyon"), first, second)


def test_where_words_have_no_spaces_a_character_counts() -> None:
    assert names_one(words("首都是巴黎"), "里昂", "巴黎")
    assert not names_one(words("首都"), "里昂", "巴黎")
