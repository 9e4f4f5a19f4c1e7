"""Decontamination: does an instruction share an n-gram of words with any benchmark row? Pure."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator

_NOT_WORD = re.compile(r"[^\w]+")
# Thai, Lao, Tibetan, Myanmar, Khmer, kana, Han and its extensions. Hangul has spaces.
_UNSPACED = re.compile(
    "([\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    "\U00020000-\U0003ffff])"
)


def words(text: str) -> list[str]:
    """Words of `text`, normalised: NFKC, lower case, punctuation and white space folded. In scripts that put no space
    between words each character is one: otherwise a sentence would be a single word that no other text shares.
    """
    found = _NOT_WORD.split(unicodedata.normalize("NFKC", text).casefold())
    return [part for word in found for part in _UNSPACED.split(word) if part]


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
