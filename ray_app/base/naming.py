"""Does a judgment name its responses: does it hold a word that only one of the two has? Pure."""

from __future__ import annotations

import functools

from ray_app.base.ngrams import words

LEAST_LETTERS = 4  # of a word that tells two responses apart: shorter ones are in every text


@functools.lru_cache(maxsize=512)  # the judgments of a pair come close to each other
def words_apart(first: str, second: str) -> frozenset[str]:
    """The words that only one of two responses has, as `ngrams.words` makes them."""
    return frozenset(set(words(first)) ^ set(words(second)))


def names_one(said: list[str], first: str, second: str) -> bool:
    """Whether something is said that only one of two responses says. `said`: words as `ngrams.words` makes them."""
    apart = words_apart(first, second)
    return any(word in apart for word in said if len(word) >= LEAST_LETTERS)
