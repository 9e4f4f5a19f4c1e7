"""Which instructions are kept: near-duplicates, and a drawn number, by category if asked."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from ray_app.generation.instruction_choice import NearDuplicates, chosen, shingles

SENTENCE = "Write a short letter to the mayor of a town of {} people that asks for a new bridge over the river"


def test_a_template_with_another_number_is_one_cluster() -> None:
    near = NearDuplicates(0.6)
    first = near.cluster(SENTENCE.format(100), "a")
    assert [near.cluster(SENTENCE.format(n), f"b{n}") for n in range(5)] == ["a"] * 5
    assert first == "a"
    assert near.cluster("What is the capital of France?", "c") == "c"


def test_the_threshold_is_a_similarity() -> None:
    one, two = SENTENCE.format(1), SENTENCE.format(2).replace("bridge", "library")
    shared = len(shingles(one) & shingles(two)) / len(shingles(one) | shingles(two))
    for threshold, together in ((shared - 0.2, True), (shared + 0.25, False)):
        near = NearDuplicates(threshold)
        near.cluster(one, "a")
        assert (near.cluster(two, "b") == "a") is together


def test_spelling_of_case_and_marks_is_no_difference() -> None:
    near = NearDuplicates(0.9)
    near.cluster("What is 2+2?", "a")
    assert near.cluster("what is 2 + 2 ??", "b") == "a"


@pytest.mark.parametrize("text", ["", "?!", "one", "one two"])
def test_short_texts_have_a_cluster(text: str) -> None:
    near = NearDuplicates(0.8)
    assert near.cluster(text, "a") == "a"
    assert near.cluster(text, "b") == "a"


ROWS = [(f"i{n}", "coding" if n < 5 else "writing" if n < 45 else None) for n in range(100)]


def test_a_number_is_drawn_by_the_seed_alone() -> None:
    kept = chosen(ROWS, 20, 1)
    assert len(kept) == 20
    assert chosen(random.Random(0).sample(ROWS, 100), 20, 1) == kept
    assert chosen(ROWS, 20, 2) != kept
    assert len(chosen(ROWS[:-1], 20, 1) & kept) >= 19
    assert chosen(ROWS, 1000, 1) == {identity for identity, _ in ROWS}


def test_categories_are_as_even_as_they_have_rows() -> None:
    category = dict(ROWS)
    counts = Counter(category[identity] for identity in chosen(ROWS, 31, 1, by_category=True))
    assert counts == {"coding": 5, "writing": 13, None: 13}
    assert len(chosen(ROWS, 100, 1, by_category=True)) == 100
