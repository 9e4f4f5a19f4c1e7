"""Which instructions are kept: near-duplicates by MinHash, and a drawn number of them, by category if asked. Pure.

Near-duplicates (a template with another number in it) on both sides of the held-out split would let a judge remember
what it is tested on. MinHash with banding (datasketch; Broder, 1997; Leskovec et al., Mining of Massive Datasets,
chapter 3) finds them without comparing every pair. It estimates: near the threshold some are missed.
"""

from __future__ import annotations

import functools
import re
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from ray_app.base.ngrams import words
from ray_app.base.schema import unit_interval

PERMUTATIONS = 128  # of a MinHash: its estimate of a similarity is good to about 0.09
WEIGHTS = (0.3, 0.7)  # of false candidates and missed ones: a candidate costs one comparison, a missed one is a leak
CANDIDATES = 0.9  # a higher threshold has too few bands; what is less similar than asked is not taken anyway
SHINGLE = 3  # words
CHARACTERS = 4
# One changed word in the middle of n words leaves n - 5 of n + 1 word trigrams: under 14 words less than 0.6. So texts
# of fewer words are compared by their characters; those between the two numbers both ways, for their neighbours' sake.
BY_WORDS, BY_CHARACTERS = 14, 20
DENSE = 32  # near-duplicates of a text that are indexed: a text with so many is not, it would be found by these
_DIGITS = re.compile(r"\d+")


class NearDuplicates:
    """Clusters of texts, one text at a time. Two texts are in one cluster where a chain of near-duplicates joins them:
    A and B, B and C are alike, so A and C belong together, whatever the order in which they come.
    """

    def __init__(self, similarity: float) -> None:
        from scipy.cluster.hierarchy import DisjointSet  # half a second

        self.indexes = {"words": _Index(similarity), "characters": _Index(similarity)}
        self.linked = DisjointSet()

    def add(self, text: str, identity: str, if_new: bool = False) -> set[str]:
        """Ids of the texts so far that `text` nearly repeats; of very many, some. From now on it is one of them; with
        `if_new` only where it repeats none. An id may be added once.
        """
        sketches = {kind: _sketch(grams) for kind, grams in views(text).items()}
        near = {kind: self.indexes[kind].near(sketch) for kind, sketch in sketches.items()}
        found = set[str]().union(*near.values())
        if found and if_new:
            return found
        self.linked.add(identity)
        for name in found:
            self.linked.merge(identity, name)
        for kind, sketch in sketches.items():
            if len(near[kind]) < DENSE:
                self.indexes[kind].add(identity, sketch)
        return found

    def clusters(self) -> dict[str, str]:
        """{id: name of its cluster} of all texts so far: the smallest id in it, whichever came first."""
        names: dict[str, str] = {}
        for identity in self.linked:
            root = self.linked[identity]
            names[root] = min(identity, names.get(root, identity))
        return {identity: names[self.linked[identity]] for identity in self.linked}


class _Index:
    """MinHashes by id."""

    def __init__(self, similarity: float) -> None:
        from datasketch import MinHashLSH

        self.similarity = similarity
        self.bands = MinHashLSH(threshold=min(similarity, CANDIDATES), num_perm=PERMUTATIONS, weights=WEIGHTS)
        self.sketches: dict[str, Any] = {}

    def near(self, sketch: Any) -> set[str]:
        return {name for name in self.bands.query(sketch) if sketch.jaccard(self.sketches[name]) >= self.similarity}

    def add(self, identity: str, sketch: Any) -> None:
        self.sketches[identity] = sketch
        self.bands.insert(identity, sketch)


def _sketch(grams: set[str]) -> Any:
    from datasketch import LeanMinHash

    sketch = _empty().copy()
    sketch.update_batch([gram.encode() for gram in grams])
    return LeanMinHash(sketch)


@functools.lru_cache(maxsize=1)
def _empty() -> Any:
    from datasketch import MinHash

    return MinHash(num_perm=PERMUTATIONS, seed=1)


def views(text: str) -> dict[str, set[str]]:
    """The sets of shingles by which a text is compared: of its words, of its characters, or both."""
    size = len(folded(text))
    by_words = {"words": shingles(text)} if size >= BY_WORDS else {}
    return by_words | ({"characters": characters(text)} if size < BY_CHARACTERS else {})


def shingles(text: str) -> set[str]:
    """Runs of three words; a shorter text is one."""
    found = folded(text)
    return {" ".join(run) for run in _runs(found, SHINGLE)}


def characters(text: str) -> set[str]:
    """Runs of four characters of a text's words; a shorter text is one."""
    return {"".join(run) for run in _runs(list(" ".join(folded(text))), CHARACTERS)}


def folded(text: str) -> list[str]:
    """Words of a text in which every number is the same one, and several in a row are one: templates that differ in
    their numbers alone are equal.
    """
    found = [_DIGITS.sub("0", word) for word in words(text)]
    return [word for place, word in enumerate(found) if word != "0" or found[place - 1 : place] != ["0"]]


def _runs(items: list[str], size: int) -> list[list[str]]:
    size = min(size, len(items)) or 1
    return [items[start : start + size] for start in range(max(1, len(items) - size + 1))]


def chosen(rows: Iterable[tuple[str, str | None]], count: int, seed: int, by_category: bool = False) -> set[str]:
    """`count` of the (id, category) rows, those of lowest seeded hash: the same whatever their order, and mostly the
    same where a few come or go. `by_category`: as evenly from every category as they have rows.
    """
    groups: dict[str | None, list[str]] = defaultdict(list)
    for identity, category in rows:
        groups[category if by_category else None].append(identity)
    kept: set[str] = set()
    for place, group in enumerate(sorted(groups.values(), key=len)):
        share = (count - len(kept)) // (len(groups) - place)  # what small groups lack goes to the larger ones
        group.sort(key=lambda identity: unit_interval("instructions", seed, identity))
        kept.update(group[:share])
    return kept
