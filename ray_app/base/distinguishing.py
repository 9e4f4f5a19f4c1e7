"""Does a judgment speak of its responses: does it hold a word of content that only one of the two has? Pure.

"You're correct, the best answer is" fits every pair; that one response happens to hold the word "correct" makes it no
better. So the commonest English words (scikit-learn's stop words) and those that judging itself uses do not count. For
other languages there is no such list, and where words have no spaces between them (Chinese) each character counts: the
share that is found is higher there than in English.
"""

from __future__ import annotations

import functools

from ray_app.base.ngrams import unspaced, words

LEAST_LETTERS = 4  # of a word that tells two responses apart: shorter ones are in every text
# What judges say whatever they judge.
_OF_JUDGING = """
accurate answer answered answering answers appropriate assistant assistants based best better choice choices choose
chosen clear compare compared complete conclusion correct correctly decision detailed ended evaluate evaluation
explanation final following given good helpful inaccurate incorrect incorrectly instruction instructions judge
judgement judgment just more option options original previous prompt provide provided provides providing question
questions quality reason reasons relevant respond responded response responses right second sorry specific user
verdict verdicts worse wrong
"""


@functools.cache
def uncounted() -> frozenset[str]:
    """Words that tell no two responses apart."""
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS  # takes a second, and not every process asks

    return frozenset(ENGLISH_STOP_WORDS).union(words(_OF_JUDGING))


@functools.lru_cache(maxsize=512)  # the judgments of a pair come close to each other
def words_apart(first: str, second: str) -> frozenset[str]:
    """The words of content that only one of two responses has, as `ngrams.words` makes them."""
    apart = set(words(first)) ^ set(words(second))
    return frozenset(word for word in apart - uncounted() if len(word) >= LEAST_LETTERS or unspaced(word))


def names_one(said: list[str], first: str, second: str) -> bool:
    """Whether something is said that only one of two responses says. `said`: words as `ngrams.words` makes them."""
    return not words_apart(first, second).isdisjoint(said)
