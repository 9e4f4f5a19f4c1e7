"""What is counted in one pass over a table. Pure: rows in, numbers and a few ids out; memory is bounded."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ray_app.base.ngrams import words
from ray_app.base.schema import unpack_text
from ray_app.base.verdict import explanation
from ray_app.generation.pair_texts import is_meta_talk, is_refusal, similarity
from ray_app.train.data import row_id

EXAMPLES = 20  # ids kept of what an alarm is about
NEAR_COPY = 0.8  # word trigrams that two responses share
PHRASINGS = 20_000  # different explanations that are told apart: more than enough to see that few are used


@dataclass
class Share:
    """A count of rows that have a property, with the first ids of them."""

    of: int = 0
    count: int = 0
    ids: list[str] = field(default_factory=list)

    def see(self, identity: str, has: bool) -> None:
        self.of += 1
        if has:
            self.count += 1
            if len(self.ids) < EXAMPLES:
                self.ids.append(identity)

    @property
    def value(self) -> float | None:
        return self.count / self.of if self.of else None


@dataclass
class PairFacts:
    """Of response pairs: how the rejected one differs from the chosen one, besides the instruction."""

    meta_talk: Share = field(default_factory=Share)
    refusals: Share = field(default_factory=Share)
    near_copies: Share = field(default_factory=Share)
    chosen_longer: Share = field(default_factory=Share)  # pairs of equal length do not enter
    chosen_shorter: Share = field(default_factory=Share)


def pair_facts(rows: Iterable[Mapping[str, Any]]) -> PairFacts:
    """Of a table of pairs."""
    facts = PairFacts()
    for row in rows:
        identity, chosen, rejected = row["pair_id"], str(row["chosen"]), str(row["rejected"])
        facts.meta_talk.see(identity, is_meta_talk(rejected))
        facts.refusals.see(identity, is_refusal(rejected))
        facts.near_copies.see(identity, similarity(chosen, rejected) >= NEAR_COPY)
        if len(chosen) != len(rejected):
            facts.chosen_longer.see(identity, len(chosen) > len(rejected))
            facts.chosen_shorter.see(identity, len(chosen) < len(rejected))
    return facts


@dataclass
class ExplanationFacts:
    """Of the judgments that are trained on: what they say besides their verdict."""

    bare: Share = field(default_factory=Share)
    words_median: float | None = None
    distinct: float | None = None  # of those that say something
    said: int = 0
    commonest: str = ""
    commonest_ids: list[str] = field(default_factory=list)


def explanation_facts(rows: Iterable[Mapping[str, Any]]) -> ExplanationFacts:
    """Of a training set (of preferences: of the chosen judgments)."""
    facts, lengths, ids = ExplanationFacts(), Counter[int](), dict[str, list[str]]()
    phrasings: Counter[str] = Counter()
    for row in rows:
        said = words(explanation(text_of(row.get("completion") or row.get("chosen"))))
        identity = row_id(row)
        facts.bare.see(identity, not said)
        lengths[len(said)] += 1
        if said:
            facts.said += 1
            phrase = " ".join(said)
            if len(phrasings) < PHRASINGS:  # then both counts stand still, so that their share stays true
                phrasings[phrase] += 1
                known = ids.setdefault(phrase, [])
                if len(known) < EXAMPLES:
                    known.append(identity)
    if facts.bare.of:
        facts.words_median = float(statistics.median(lengths.elements()))
    if facts.said:
        facts.distinct = len(phrasings) / sum(phrasings.values())
        facts.commonest, _ = phrasings.most_common(1)[0]
        facts.commonest_ids = ids[facts.commonest]
    return facts


@dataclass
class VerdictFacts:
    """Of judgments or votes: those without a verdict, and those for the response shown first among the others."""

    unparsed: Share = field(default_factory=Share)
    first: Share = field(default_factory=Share)
    second: Share = field(default_factory=Share)


def verdict_facts(rows: Iterable[Mapping[str, Any]]) -> VerdictFacts:
    """Of a table of judgments, or of votes on an evaluation set. Scores have no verdict and do not enter."""
    facts = VerdictFacts()
    for row in rows:
        if "verdict" not in row:
            continue
        identity = "/".join(str(row[key]) for key in ("pair_id", "id", "order", "sample") if key in row)
        facts.unparsed.see(identity, row["verdict"] is None)
        if row["verdict"] in ("A", "B"):
            facts.first.see(identity, row["verdict"] == "A")
            facts.second.see(identity, row["verdict"] == "B")
    return facts


def text_of(messages: Any) -> str:
    """The text of a completion in TRL's form: its last message."""
    return str(messages[-1]["content"]) if messages else ""


def shown_text(packed: Any) -> str:
    """A packed text as a reader sees it: messages one below the other."""
    text = unpack_text(str(packed or ""))
    return text if isinstance(text, str) else "\n\n".join(f"{turn['role']}: {turn['content']}" for turn in text)
