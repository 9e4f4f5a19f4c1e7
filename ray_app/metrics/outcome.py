"""One record a row: what was right, what the judge said in each order, and what baselines need. Pure.

Verdicts are positional (A = the response shown first); in order `ba` response_b is shown first. `orders` says
what was asked: both, one (the official protocol), or ANY, a verdict about response_a / response_b whose order
is unknown, kept in `verdict_ab`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from ray_app.base.content_words import overlap_gap
from ray_app.base.prompts import contents, transcript
from ray_app.base.schema import AB, BA, Letter, PairwiseRow, Text, derive_seed, pair_key
from ray_app.base.verdict import Count, both_orders
from ray_app.benchmarks.base import Benchmark
from ray_app.errors import InputError

ANY = "any"
Protocol = Literal["both_orders", "official"]
TURNED: Mapping[str | None, Letter | None] = {"A": "B", "B": "A"}


@dataclass(frozen=True)
class Outcome:
    """A judged row. A verdict of None is unparsed (or an undecided vote); lengths are in characters."""

    id: str
    subset: str
    group: str
    label: str | None
    verdict_ab: str | None
    verdict_ba: str | None = None
    votes_ab: Count | None = None
    votes_ba: Count | None = None
    length_a: int = 0
    length_b: int = 0
    orders: tuple[str, ...] = (AB, BA)
    pair: str = ""  # the same for all rows with the same texts, either way round: several human votes on one pair
    turned: bool = False  # this row has the responses of its pair the other way round
    partial: bool = False  # voting stopped early, so vote shares are not those of all k
    mirror: str | None = None  # id of the row with these two responses under another instruction
    similarity: float | None = None  # of the row's two instructions
    overlap_gap: int = 0  # by how many of the instruction's words of content response_a has more than response_b

    def verdicts(self) -> list[tuple[str, str | None, Count | None]]:
        """(order, positional verdict, votes) of every order asked."""
        sides = {AB: (self.verdict_ab, self.votes_ab), BA: (self.verdict_ba, self.votes_ba)}
        return [(order, *sides[AB if order == ANY else order]) for order in self.orders]

    def gold(self, order: str) -> str | None:
        """The right positional verdict in `order`."""
        return TURNED.get(self.label) if order == BA else self.label

    def score(self) -> float:
        """Share of the asked orders that are right: 0, ½ or 1. Unparsed is wrong."""
        right = [self.label is not None and v == self.gold(order) for order, v, _ in self.verdicts()]
        return sum(right) / len(right)

    def final(self) -> str | None:
        """The verdict about response_a / response_b: what all asked orders agree on, else None."""
        if self.orders == (AB, BA):
            return both_orders(self.verdict_ab, self.verdict_ba)[0]
        order, verdict, _ = self.verdicts()[0]
        return TURNED.get(verdict) if order == BA else verdict


def official_order(seed: int, id: str) -> str:
    """The one order the official protocol shows this row in: random, but seeded by the row's id."""
    return BA if derive_seed(seed, 0, "official_order", id, "", 0) & 1 else AB


def asked_orders(protocol: Protocol, seed: int, id: str) -> tuple[str, ...]:
    """The orders a protocol judges a row in."""
    return (AB, BA) if protocol == "both_orders" else (official_order(seed, id),)


def outcomes_of(
    benchmark: Benchmark,
    tallies: Mapping[str, Mapping[str, Count]],
    *,
    votes: int = 1,
    protocol: Protocol = "both_orders",
    seed: int = 0,
    quarantined: Collection[str] = (),
) -> list[Outcome]:
    """Outcomes from drawn votes, `{id: {order: Count}}` with `votes` asked an order.

    Rows quarantined by the loader, or later (`quarantined`: ids too long for the context), count as unparsed.
    Raises InputError with counts for ids that the benchmark lacks, or rows that have no votes.
    """
    check_ids(benchmark, tallies, quarantined)
    out = []
    for row in benchmark.rows:
        counts = tallies.get(row.id, {})
        ab, ba = counts.get(AB, Count()), counts.get(BA, Count())
        orders = asked_orders(protocol, seed, row.id)
        partial = any(0 < counts[order].drawn < votes for order in orders if order in counts)
        out.append(judged(row, (ab.verdict, ba.verdict), (ab, ba), orders, partial))
    return out + lost(benchmark, protocol, seed)


def judged(
    row: PairwiseRow,
    verdicts: tuple[str | None, str | None],
    votes: tuple[Count | None, Count | None],
    orders: tuple[str, ...],
    partial: bool = False,
) -> Outcome:
    """The outcome of one row of a benchmark."""
    pair, turned = pair_key(row)
    return Outcome(
        row.id,
        row.subset,
        row.group,
        row.label,
        *verdicts,
        *votes,
        length_a=length(row.response_a),
        length_b=length(row.response_b),
        orders=orders,
        pair=pair,
        turned=turned,
        partial=partial,
        mirror=row.mirror,
        similarity=row.similarity,
        overlap_gap=overlap_gap(contents(row.instruction), contents(row.response_a), contents(row.response_b)),
    )


def scored(row: PairwiseRow, score_a: float | None, score_b: float | None) -> Outcome:
    """The outcome of pointwise judging: the higher mean score wins, equal or missing scores are unparsed."""
    verdict: Letter | None = None
    if score_a is not None and score_b is not None and score_a != score_b:
        verdict = "A" if score_a > score_b else "B"
    return judged(row, (verdict, None), (None, None), (ANY,))


def lost(benchmark: Benchmark, protocol: Protocol, seed: int) -> list[Outcome]:
    """Rows the loader quarantined, as unparsed: n stays what the file says."""
    return [
        Outcome(
            f.id,
            f.subset,
            f.group,
            None,
            None,
            None,
            Count(),
            Count(),
            orders=asked_orders(protocol, seed, f.id),
        )
        for f in benchmark.faulty
    ]


def check_ids(benchmark: Benchmark, given: Iterable[str], may_lack: Collection[str] = ()) -> None:
    """Raise InputError, with counts and an example, unless `given` are the benchmark's ids.

    Quarantined rows may be there or not, and so may rows after the benchmark's limit.
    """
    ids = {row.id for row in benchmark.rows} | {row.id for row in benchmark.best_of}
    ids |= {row.id for row in benchmark.rated}
    optional = {f.id for f in benchmark.faulty} | set(may_lack)
    present = set(given)
    missing, unknown = sorted(ids - optional - present), sorted(present - ids - optional - benchmark.beyond)
    parts = [
        f"{len(found)} {what} {'id' if len(found) == 1 else 'ids'} (first: {found[0][:80]})"
        for what, found in (("missing", missing), ("unknown", unknown))
        if found
    ]
    if parts:
        raise InputError(f"verdicts do not fit {benchmark.name}: " + ", ".join(parts))


def length(text: Text) -> int:
    """Characters, as the length baseline counts them."""
    return len(transcript(text))
