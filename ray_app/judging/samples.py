"""Drawn judgments without their texts: what rejection sampling decides by, and where the texts lie."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import repeat

from ray_app.base.ngrams import words
from ray_app.base.verdict import explanation
from ray_app.run.storage import read_parquet

Unit = tuple[str, str]  # (pair_id, order or side)
Judgment = tuple[str, str, int]  # (pair_id, order or side, sample)
Places = Mapping[str, tuple[str, ...]]  # the files that hold a pair's judgments, by pair_id
KEYS = ["pair_id", "order", "sample", "verdict", "correct", "kept"]


@dataclass(frozen=True, order=True, slots=True)
class Sample:
    """One drawn judgment, without its text. There are millions of them in memory."""

    pair_id: str
    order: str
    sample: int
    verdict: str | None
    correct: bool
    kept: bool
    bare: bool = False  # it says too little to be acceptable (judging.min_explanation)

    @property
    def unit(self) -> Unit:
        return self.pair_id, self.order

    @property
    def key(self) -> Judgment:
        return self.pair_id, self.order, self.sample


def read_samples(judgment_files: Iterable[str], min_words: int = 0) -> tuple[list[Sample], Places]:
    """All samples without their texts, and for each pair_id the files that hold its samples. With `min_words` the texts
    are looked at: those that say less are `bare`.
    """
    columns = [*KEYS, "text"] if min_words else KEYS
    samples: list[Sample] = []
    files: dict[str, tuple[str, ...]] = {}
    for file in judgment_files:
        table, alone = read_parquet(file, columns=columns), (file,)
        keys = (table.column(name).to_pylist() for name in KEYS)
        texts = table.column("text").to_pylist() if min_words else repeat(None, table.num_rows)
        for pair, order, number, verdict, correct, kept, text in zip(*keys, texts, strict=True):
            # Each name once in memory, however often it was drawn: it is most of a sample.
            pair, order, verdict = sys.intern(pair), sys.intern(order), sys.intern(verdict) if verdict else verdict
            bare = text is not None and len(words(explanation(text))) < min_words
            samples.append(Sample(pair, order, number, verdict, correct, kept, bare))
            place(files, pair, alone)
    return samples, files


def place(files: dict[str, tuple[str, ...]], pair: str, alone: tuple[str]) -> None:
    """Note that a pair has judgments in the file that is being read. Most pairs lie in one: they share its tuple."""
    known = files.get(pair)
    if known is None:
        files[pair] = alone
    elif known[-1] != alone[0]:
        files[pair] = known + alone
