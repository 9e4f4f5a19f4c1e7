"""Decontamination: does a text share an n-gram of words with any benchmark row, or hold a short one? Pure."""

from __future__ import annotations

import functools
import hashlib
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

SHARED = "contaminated"  # the fault of a text that has an n-gram of a benchmark
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
    return _grams(_codes(text), n)


def _grams(codes: Sequence[int], n: int) -> Iterator[int]:
    size = min(n, len(codes))
    for start in range(len(codes) - size + 1 if codes else 0):
        yield hash(tuple(codes[start : start + size]))


def _codes(text: str) -> list[int]:
    return [_code(word) for word in words(text)]


@functools.lru_cache(maxsize=1 << 16)
def _code(word: str) -> int:
    """A number that stands for a word, in every process: Python salts its hashes of texts, not those of numbers."""
    return int.from_bytes(hashlib.blake2b(word.encode("utf-8", "replace"), digest_size=8).digest(), "big")


class Hashes:
    """A set of 64-bit hashes. Pickled it is a sorted array, which Ray hands to its workers without a copy."""

    def __init__(self, known: NDArray[np.int64] | None = None) -> None:
        self.known = known
        self.added: set[int] = set()

    def update(self, more: Iterable[int]) -> None:
        self.added.update(more)

    def __contains__(self, value: int) -> bool:
        if value in self.added:
            return True
        if self.known is None or not len(self.known):
            return False
        place = int(np.searchsorted(self.known, value))
        return place < len(self.known) and int(self.known[place]) == value

    def __reduce__(self) -> tuple[type[Hashes], tuple[NDArray[np.int64]]]:
        new = np.fromiter(self.added, dtype=np.int64, count=len(self.added))
        return Hashes, (np.unique(new if self.known is None else np.concatenate([self.known, new])),)


class Contamination:
    """The word n-grams of benchmarks, as hashes that are the same in every process.

    A benchmark prompt of fewer than `n` words is found where a text is that prompt; with `min_words`, if it has so
    many, also inside a longer text, as whole words in a row. Shorter ones are not: a few words stand everywhere.
    """

    def __init__(self, n: int, min_words: int | None = None) -> None:
        self.n, self.min_words = n, min_words
        self.grams = Hashes()
        self.short: dict[int, Hashes] = {}  # {words: benchmark prompts of so many}

    def add(self, texts: Iterable[str]) -> None:
        for text in texts:
            codes = _codes(text)
            self.grams.update(_grams(codes, self.n))
            if self.min_words is not None and self.min_words <= len(codes) < self.n:
                self.short.setdefault(len(codes), Hashes()).update(_grams(codes, len(codes)))

    def fault(self, text: str) -> str | None:
        """`SHARED` where an n-gram of `text` occurs in a benchmark (short texts must match as a whole),
        `holds_benchmark_prompt` where a short prompt of one stands inside it; else None.
        """
        codes = _codes(text)
        if any(gram in self.grams for gram in _grams(codes, self.n)):
            return SHARED
        found = any(gram in known for size, known in self.short.items() for gram in _grams(codes, size))
        return "holds_benchmark_prompt" if found else None

    def matches(self, text: str) -> bool:
        """Whether there is such a fault."""
        return self.fault(text) is not None
