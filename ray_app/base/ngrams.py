"""Decontamination: does an instruction share an n-gram of words with any benchmark row? Pure."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator

_NOT_WORD = re.compile(r"[^\w]+")


def words(text: str) -> list[str]:
    """Words of `text`, normalised: NFKC, lower case, punctuation and white space folded."""
    return [w for w in _NOT_WORD.split(unicodedata.normalize("NFKC", text).casefold()) if w]


def ngrams(text: str, n: int) -> Iterator[int]:
    """Hashes of the word n-grams of `text`; a text shorter than n counts as one gram of its own."""
    found = words(text)
    if not found:
        return
    size = min(n, len(found))
    for start in range(len(found) - size + 1):
        yield hash(tuple(found[start : start + size]))


class Contamination:
    """The n-grams of the benchmarks, as 64-bit hashes of one process (tuples of str: stable within a run)."""

    def __init__(self, n: int) -> None:
        self.n = n
        self.grams: set[int] = set()

    def add(self, texts: Iterable[str]) -> None:
        for text in texts:
            self.grams.update(ngrams(text, self.n))

    def matches(self, text: str) -> bool:
        """Whether any n-gram of `text` occurs in a benchmark; short texts must match as a whole."""
        return any(gram in self.grams for gram in ngrams(text, self.n))
