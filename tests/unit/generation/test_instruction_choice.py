"""Which instructions are kept: near-duplicates, and a drawn number, by category if asked."""

from __future__ import annotations

import itertools
import random
from collections import Counter, defaultdict
from collections.abc import Iterable

import pytest

from ray_app.generation.instruction_choice import BY_WORDS, DENSE, NearDuplicates, chosen, folded, shingles

SENTENCE = "Write a short letter to the mayor of a town of {} people that asks for a new bridge over the river"


def clusters(texts: Iterable[str], similarity: float = 0.6) -> list[set[str]]:
    """Texts that are in one cluster, the largest clusters first."""
    near, named = NearDuplicates(similarity), dict[str, str]()
    for place, text in enumerate(texts):
        near.add(text, f"i{place:04d}")
        named[f"i{place:04d}"] = text
    found: dict[str, set[str]] = defaultdict(set)
    for identity, cluster in near.clusters().items():
        found[cluster].add(named[identity])
    return sorted(found.values(), key=len, reverse=True)


def test_a_template_with_another_number_is_one_cluster() -> None:
    letters = [SENTENCE.format(n) for n in (100, 1, 20, 3_000_000)]
    assert clusters([*letters, "What is the capital of France?"]) == [set(letters), {"What is the capital of France?"}]


CHAIN = (
    "Write a short letter to the mayor of our town that asks for a new bridge over the river near the old mill",
    "Write a short letter to the mayor of our town that asks for a new bridge over the lake near the old church",
    "Write a long poem for the mayor of our town that asks for a new bridge over the lake near the old church",
)


def share(one: str, two: str) -> float:
    first, second = shingles(one), shingles(two)
    return len(first & second) / len(first | second)


def test_a_chain_of_near_duplicates_is_one_cluster_in_every_order() -> None:
    """A like B, B like C, but not A like C: in a cluster of its own, C may be held out while B is trained on."""
    first, middle, last = CHAIN
    assert min(share(first, middle), share(middle, last)) > 0.6 > 0.55 > share(first, last)
    assert clusters([first, last], 0.5) == [{first}, {last}]
    for order in itertools.permutations(CHAIN):
        assert clusters(order, 0.5) == [set(CHAIN)]


def test_the_name_of_a_cluster_is_the_same_in_every_order() -> None:
    for order in itertools.permutations(range(3)):
        near = NearDuplicates(0.5)
        for place in order:
            near.add(CHAIN[place], f"i{place}")
        assert set(near.clusters().values()) == {"i0"}


def test_of_near_duplicates_only_the_first_is_indexed_where_that_is_asked() -> None:
    """What a text repeats that was left out is no reason to leave it out as well."""
    near = NearDuplicates(0.5)
    assert [near.add(text, f"i{n}", if_new=True) for n, text in enumerate(CHAIN)] == [set(), {"i0"}, set()]
    assert near.clusters() == {"i0": "i0", "i2": "i2"}


TEMPLATES = [
    ["What is 2+2?", "What is 2+3?", "what is 12 + 7 ?"],
    ["Write a poem about cats.", "Write a poem about dogs.", "write a poem about bats"],
    ["What is the capital of France?", "What is the capital of Greece?"],
    ["Translate 'good morning' into French.", "Translate 'good morning' into Spanish."],
    ["Give me a recipe for tomato soup with rice.", "Give me a recipe for potato soup with rice."],
]


@pytest.mark.parametrize("texts", TEMPLATES, ids=lambda texts: texts[0])
def test_short_templates_are_one_cluster(texts: list[str]) -> None:
    assert clusters(texts) == [set(texts)]


def test_a_text_just_long_enough_for_words_is_compared_with_one_that_is_not() -> None:
    shorter = "Write a short letter to the mayor that asks for a new bridge"
    longer = f"{shorter}, please"
    assert (len(folded(shorter)), len(folded(longer))) == (BY_WORDS - 1, BY_WORDS)
    assert clusters([shorter, longer]) == [{shorter, longer}]


APART = [
    ["What is the capital of France?", "What is the currency of France?", "Who is the president of France?"],
    ["Name a bird that sings at night.", "Name a fish that lives in a cold lake."],
    ["How do I boil an egg?", "How do I open a bank account?", "How do I learn to sing?"],
    ["Write a poem about cats.", "Write a program that sorts cats.", "Write a report about the economy."],
    ["Summarize the text.", "Translate the text.", "Hi", "Ho"],
]


@pytest.mark.parametrize("texts", APART, ids=lambda texts: texts[0])
def test_texts_that_only_look_alike_stay_apart(texts: list[str]) -> None:
    assert sorted(map(list, clusters(texts))) == sorted([text] for text in texts)


def test_a_cluster_of_very_many_is_whole_though_few_of_it_are_indexed() -> None:
    texts = [f"{SENTENCE.format(1)} {chr(97 + n % 26)}{chr(97 + n // 26)}" for n in range(200)]
    near = NearDuplicates(0.6)
    for place, text in enumerate(texts):
        near.add(text, f"i{place:03d}")
    assert set(near.clusters().values()) == {"i000"}
    assert len(near.indexes["words"].sketches) == DENSE


def test_the_threshold_is_a_similarity() -> None:
    one, two = SENTENCE.format(1), SENTENCE.format(2).replace("bridge", "library")
    shared = share(one, two)
    for threshold, together in ((shared - 0.2, True), (shared + 0.25, False)):
        assert (len(clusters([one, two], threshold)) == 1) is together


def test_spelling_of_case_and_marks_is_no_difference() -> None:
    assert len(clusters(["What is 2+2?", "what is 2 + 2 ??"], 0.9)) == 1


@pytest.mark.parametrize("text", ["", "?!", "one", "one two"])
def test_short_texts_have_a_cluster(text: str) -> None:
    near = NearDuplicates(0.8)
    near.add(text, "a")
    assert near.add(text, "b") == {"a"}
    assert near.clusters() == {"a": "a", "b": "a"}


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
