"""Words that only one of two responses has."""

from __future__ import annotations

from ray_app.base.naming import names_one
from ray_app.base.ngrams import words

PARIS, LYON = "The capital of France is Paris.", "The capital of France is Lyon."


def test_a_word_that_both_have_names_none() -> None:
    assert names_one(words("it says Lyon"), PARIS, LYON)
    assert not names_one(words("the capital of France"), PARIS, LYON)
    assert not names_one(words("is it so"), "so it is", "no")  # short words are in every text
