"""Words of content, and those that only one of two responses has."""

from __future__ import annotations

from ray_app.base.content_words import GRAMMAR, JUDGING, content_words, overlap_gap, words_apart
from ray_app.base.ngrams import words

PARIS, LYON = "The capital of France is Paris.", "The capital of France is Lyon."


def test_grammar_is_no_content_and_figures_are() -> None:
    assert content_words("Isn't it the 7th of May, or the 12th? I doubt that it is 3.") == {"7th", "12th", "doubt", "3"}
    assert not content_words("Wouldn't you rather have been there yourself?")
    assert content_words("Twelve fires") == {"twelve", "fires"}


def test_a_word_that_both_have_tells_nothing() -> None:
    assert words_apart(PARIS, LYON) == {"paris", "lyon"}
    assert not words_apart(PARIS, PARIS)
    assert words_apart("It is 18.", "It is 20.") == {"18", "20"}


def test_what_would_be_said_of_any_two_responses_tells_nothing() -> None:
    """That one of them happens to hold such a word changes nothing."""
    first = "You're correct, I should have ended my response earlier. Your final answer didn't ask for Lyon"
    assert words_apart(first, "Paris") == {"earlier", "ask", "lyon", "paris"}


def test_other_scripts_have_content_too() -> None:
    assert words_apart("首都是里昂", "首都是巴黎") == {"里", "昂", "巴", "黎"}
    assert words_apart("서울", "부산") == {"서울", "부산"}


def test_which_response_has_more_of_the_instructions_words() -> None:
    assert overlap_gap("Name the capital of Peru.", "The capital of Peru: Lima.", "It is the capital.") == 1
    assert overlap_gap("Name the capital of Peru.", "Lima.", "The capital, the capital!") == -1
    assert overlap_gap("Name the capital of Peru.", "The one of it", "Is it of the") == 0


def test_the_lists_are_words_as_texts_are_split_into() -> None:
    for listed in (GRAMMAR, JUDGING):
        assert all(words(word) == [word] for word in listed)
