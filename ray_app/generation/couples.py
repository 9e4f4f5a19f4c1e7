"""Couples of neighbours: disjoint pairs of similar but different instructions, within one split. Pure, no randomness.

Each of the two is answered. For either instruction the answer to the other is on the same matter and answers something
else, and every response is once the better and once the worse one: nothing but the instruction tells which.

Similarity is the cosine of TF-IDF vectors over words (scikit-learn); couples are taken greedily from the most similar
on. Near-duplicates ask for the same, so their answers would both be right: they never form a couple.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ray_app.base.ngrams import words

NEAREST = 32  # candidates an instruction; who is left over is coupled in a second round among the others
ROUNDS = 8


@dataclass(frozen=True)
class Couple:
    """Positions of two instructions, and how similar they are."""

    first: int
    second: int
    similarity: float


def couples(texts: Sequence[str], splits: Sequence[str], min_similarity: float, max_similarity: float) -> list[Couple]:
    """Couples of `texts`, by position, the most similar first; both of a couple are of one split.

    Who has no neighbour of at least `min_similarity` and at most `max_similarity` stays alone.
    """
    by_split: dict[str, list[int]] = defaultdict(list)
    for position, split in enumerate(splits):
        by_split[split].append(position)
    found = [
        Couple(positions[a], positions[b], value)
        for _, positions in sorted(by_split.items())
        for a, b, value in _coupled([texts[p] for p in positions], min_similarity, max_similarity)
    ]
    return sorted(found, key=lambda couple: (-couple.similarity, couple.first))


def similarities(pairs: Sequence[tuple[str, str]]) -> list[float]:
    """The similarity of the two texts of each pair, by vectors of all texts; 0 where there is no word."""
    vectors = _vectors([text for pair in pairs for text in pair])
    if vectors is None:
        return [0.0] * len(pairs)
    products = vectors[0::2].multiply(vectors[1::2]).sum(axis=1)  # of unit vectors: cosines, a matrix of one column
    return [round(float(value), 6) for value in np.asarray(products).ravel()]


def _coupled(texts: Sequence[str], low: float, high: float) -> Iterator[tuple[int, int, float]]:
    """Greedy couples of one split. Rounds: whose nearest were all taken looks among those who are left."""
    left = list(range(len(texts)))
    vectors = _vectors(texts)
    for _ in range(ROUNDS):
        if vectors is None or len(left) < 2:
            return
        taken: set[int] = set()
        for value, a, b in _edges(vectors[left], low, high):
            if a not in taken and b not in taken:
                taken |= {a, b}
                yield left[a], left[b], value
        if not taken:
            return
        left = [position for index, position in enumerate(left) if index not in taken]


def _vectors(texts: Sequence[str]) -> Any:
    """One unit vector a text, sparse; None where no text has a word."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    if not any(words(text) for text in texts):
        return None
    return TfidfVectorizer(analyzer=words, sublinear_tf=True).fit_transform(texts)


def _edges(vectors: Any, low: float, high: float) -> list[tuple[float, int, int]]:
    """(similarity, a, b) of near neighbours with a < b, the most similar first; ties by position."""
    from sklearn.neighbors import NearestNeighbors

    size = vectors.shape[0]
    model = NearestNeighbors(n_neighbors=min(NEAREST + 1, size), metric="cosine").fit(vectors)
    distances, neighbours = model.kneighbors(vectors)
    edges = {
        (min(a, int(b)), max(a, int(b))): round(1.0 - float(distance), 6)
        for a in range(size)
        for distance, b in zip(distances[a], neighbours[a], strict=True)
        if a != b and low <= 1.0 - float(distance) <= high
    }
    return sorted(((value, a, b) for (a, b), value in edges.items()), key=lambda edge: (-edge[0], edge[1], edge[2]))
