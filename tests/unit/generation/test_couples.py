"""Couples of neighbours: disjoint, within a split, similar but not the same, and the same ones every time."""

from __future__ import annotations

import math
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ray_app.base.ngrams import words
from ray_app.generation.couples import couples, similarities

BIRDS = ["Name a bird that sings at night.", "Name a bird that sings by day.", "Name a bird that swims."]
SOUPS = ["How do I cook a soup of lentils?", "How do I cook a soup of beans?", "How do I freeze a soup?"]
ODD = ["Prove that the square root of two is irrational."]


def found(texts: list[str], splits: list[str] | None = None, low: float = 0.1, high: float = 0.9) -> list[set[str]]:
    made = couples(texts, splits or ["train"] * len(texts), low, high)
    return [{texts[couple.first], texts[couple.second]} for couple in made]


def test_neighbours_are_about_the_same_matter() -> None:
    made = found([*BIRDS[:2], *ODD, *SOUPS[:2]])
    assert sorted(map(sorted, made)) == sorted([sorted(BIRDS[:2]), sorted(SOUPS[:2])])


def test_who_is_left_over_is_coupled_among_the_others() -> None:
    """Of three birds two are coupled; four of them make two couples."""
    assert len(found(BIRDS)) == 1
    assert len(found([*BIRDS, "Name a bird that cannot fly."])) == 2


def test_near_duplicates_ask_for_the_same() -> None:
    same = [BIRDS[0], "Name a bird that sings at night!", BIRDS[2]]
    assert {frozenset(couple) for couple in found(same, high=0.95)} in (
        {frozenset({same[0], same[2]})},
        {frozenset({same[1], same[2]})},
    )


def test_both_of_a_couple_are_of_one_split() -> None:
    splits = ["train", "heldout", "train", "train", "train", "heldout"]
    texts = [*BIRDS, *SOUPS]
    for couple in couples(texts, splits, 0.0, 1.0):
        assert splits[couple.first] == splits[couple.second]


def test_nothing_to_couple_is_no_couple() -> None:
    assert found([]) == found(["one"]) == found(["!!!", "???"]) == found([BIRDS[0], ODD[0]], low=0.5) == []


WORDS = st.lists(
    st.sampled_from(["a", "b", "c", "d", "e", "f", "g", "h", "bird", "soup", "night", "day"]), min_size=1, max_size=6
).map(" ".join)


@given(st.lists(st.tuples(WORDS, st.sampled_from(["train", "heldout"])), max_size=40), st.randoms())
@settings(max_examples=60, deadline=None)
def test_couples_are_disjoint_similar_and_repeatable(rows: list[tuple[str, str]], random: object) -> None:
    texts, splits = [text for text, _ in rows], [split for _, split in rows]
    made = couples(texts, splits, 0.2, 0.9)
    used = [position for couple in made for position in (couple.first, couple.second)]
    assert len(used) == len(set(used))
    assert all(0.2 <= couple.similarity <= 0.9 for couple in made)
    assert [couple.similarity for couple in made] == sorted((c.similarity for c in made), reverse=True)
    assert couples(texts, splits, 0.2, 0.9) == made


def test_the_similarity_of_a_pair_is_the_cosine_of_its_tf_idf_vectors() -> None:
    pairs = [(BIRDS[0], BIRDS[1]), (BIRDS[0], SOUPS[0]), (ODD[0], ODD[0]), ("bird bird fish", "Bird!"), ("", "?")]
    texts = [words(text) for pair in pairs for text in pair]
    found_in = Counter(word for text in texts for word in set(text))
    idf = {word: math.log((1 + len(texts)) / (1 + count)) + 1 for word, count in found_in.items()}

    def vector(text: list[str]) -> dict[str, float]:
        weights = {word: (1 + math.log(count)) * idf[word] for word, count in Counter(text).items()}
        length = math.sqrt(sum(weight**2 for weight in weights.values())) or 1
        return {word: weight / length for word, weight in weights.items()}

    vectors = [vector(text) for text in texts]
    wanted = [sum(a[word] * b.get(word, 0) for word in a) for a, b in zip(vectors[::2], vectors[1::2], strict=True)]
    assert similarities(pairs) == pytest.approx(wanted, abs=1e-5)
    assert wanted[2] == pytest.approx(1)
    assert similarities([("", "?")]) == [0.0]
    assert similarities([]) == []
