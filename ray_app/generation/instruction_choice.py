"""Which instructions are kept: near-duplicates by MinHash, and a drawn number of them, by category if asked. Pure.

Near-duplicates (a template with another number in it) on both sides of the held-out split would let a judge remember
what it is tested on. MinHash with banding (datasketch; Broder, 1997; Leskovec et al., Mining of Massive Datasets,
chapter 3) finds them without comparing every pair.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from ray_app.base.ngrams import words
from ray_app.base.schema import unit_interval

PERMUTATIONS = 128  # of a MinHash: its estimate of a similarity is good to about 0.09
SHINGLE = 3  # words


class NearDuplicates:
    """Clusters of texts, one text at a time: a text belongs to that of the earliest text that is similar to it."""

    def __init__(self, similarity: float) -> None:
        from datasketch import MinHashLSH  # loads scipy, half a second

        self.similarity = similarity
        self.index = MinHashLSH(threshold=similarity, num_perm=PERMUTATIONS)
        self.known: dict[str, tuple[int, str, object]] = {}  # {id: (place, cluster, MinHash)} of clusters' first texts

    def cluster(self, text: str, identity: str) -> str:
        """The cluster's name: the id of its first text."""
        from datasketch import MinHash

        sketch = MinHash(num_perm=PERMUTATIONS, seed=1)
        sketch.update_batch([shingle.encode() for shingle in shingles(text)])
        near = [self.known[name] for name in self.index.query(sketch)]
        similar = [place for place in near if sketch.jaccard(place[2]) >= self.similarity]
        if similar:
            return min(similar)[1]
        self.known[identity] = (len(self.known), identity, sketch)
        self.index.insert(identity, sketch)
        return identity


def shingles(text: str) -> set[str]:
    """Runs of three words; a shorter text is one."""
    found = words(text)
    size = min(SHINGLE, len(found)) or 1
    return {" ".join(found[start : start + size]) for start in range(max(1, len(found) - size + 1))}


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
