"""Verdict files (docs/evaluation.md): written by `judge` and `evaluate`, scored wherever they were made.

    {"id", "verdict": "A"|"B"|null, "inconsistent": bool, "quarantined"?: reason,
     "orders": {"ab": {"verdict", "votes": {"A", "B", "unparsed"}, "partial"?}, "ba": …}}

`id` and `verdict` alone are enough; other columns are not read. The top verdict speaks of response_a / response_b,
those of `orders` are positional. For RewardBench 2 in its own form: {"id", "choice": index|null} or {"id", "ratings":
[number|null, …]}, over the row's chosen, then rejected responses; for rated sets: {"id", "rating": number|null}.
Everything is joined by id, never by row number.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import fsspec

from ray_app.base.schema import AB, BA
from ray_app.base.verdict import Count, both_orders
from ray_app.benchmarks.base import ID, Benchmark, Ids
from ray_app.benchmarks.files import Numbered, Types, read_numbered
from ray_app.errors import InputError
from ray_app.metrics.bootstrap import RESAMPLES
from ray_app.metrics.correlation import rated_outcomes, summarise_rated
from ray_app.metrics.outcome import ANY, Outcome, Protocol, asked_orders, check_ids, judged, lost
from ray_app.metrics.rewardbench2 import best_of_outcomes, lost_of, summarise_best_of
from ray_app.metrics.summary import summarise

_COLUMNS: Mapping[str, Types] = {"verdict": str, "inconsistent": bool, "orders": dict, "quarantined": str}
_ANSWERS: Mapping[str, Types] = {"choice": int, "ratings": list, "quarantined": str}
_VOTES = ("A", "B", "unparsed")
_LARGEST = 10**9  # count or rating: an infinite one has no mean


@dataclass(frozen=True)
class OrderVerdict:
    """One order: positional verdict, and the votes behind it where the file has them."""

    verdict: str | None
    votes: Count | None = None
    partial: bool = False

    def record(self) -> dict[str, Any]:
        """The order's part of a line again."""
        out: dict[str, Any] = {"verdict": self.verdict}
        if self.votes is not None:
            out["votes"] = {"A": self.votes.a, "B": self.votes.b, "unparsed": self.votes.unparsed}
        return {**out, "partial": True} if self.partial else out


@dataclass(frozen=True)
class Verdict:
    """One line of a verdict file."""

    id: str
    verdict: str | None
    orders: Mapping[str, OrderVerdict] = field(default_factory=dict)
    quarantined: str | None = None

    def record(self) -> dict[str, Any]:
        """The line again."""
        both = [self.orders[name].verdict for name in (AB, BA) if name in self.orders]
        out: dict[str, Any] = {"id": self.id, "verdict": self.verdict}
        out["inconsistent"] = len(both) == 2 and both_orders(*both)[1]
        if self.orders:
            out["orders"] = {name: order.record() for name, order in self.orders.items()}
        return out if self.quarantined is None else {**out, "quarantined": self.quarantined}


def read_verdicts(path: str) -> dict[str, Verdict]:
    """Verdicts by id. Raises InputError naming the line for anything that is no verdict, or a repeated id."""
    ids, out = Ids(), {}
    for numbered in read_numbered(path, {"id": ID, "verdict": str}, _COLUMNS):
        identity = ids.own(numbered.row["id"], numbered.where)
        out[identity] = _verdict(identity, numbered)
    return out


def write_verdicts(path: str, records: Iterable[Mapping[str, Any]]) -> int:
    """Write records, one JSON line each, and return how many. The file appears whole or not at all."""
    fs, target = fsspec.core.url_to_fs(path)
    if fs.isdir(target):
        raise InputError(f"{path} is a folder; the verdicts are one file")
    parent = fs._parent(target)
    if parent:
        fs.makedirs(parent, exist_ok=True)
    temporary, written = f"{target}.{uuid.uuid4().hex}.tmp", 0
    with fs.open(temporary, "w", encoding="utf-8") as file:
        for record in records:
            file.write(json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n")
            written += 1
    fs.mv(temporary, target)
    return written


def join(
    benchmark: Benchmark, verdicts: Mapping[str, Verdict], protocol: Protocol = "both_orders", seed: int = 0
) -> list[Outcome]:
    """Outcomes of the benchmark's rows. Raises InputError with counts of missing and unknown ids.

    Under `official` a file with both orders is scored on the seeded one alone.
    """
    check_ids(benchmark, verdicts)
    out = []
    for row in benchmark.rows:
        verdict = verdicts[row.id]
        orders = tuple(o for o in asked_orders(protocol, seed, row.id) if o in verdict.orders)
        if protocol == "official" and verdict.orders and not orders:
            raise InputError(
                f"verdict of {row.id[:80]} lacks the one order that --protocol official asks for with this seed: "
                "score it with the seed it was judged with, or with --protocol both_orders"
            )
        orders = orders or tuple(verdict.orders)
        if not orders:
            out.append(judged(row, (verdict.verdict, None), (None, None), (ANY,)))
            continue
        ab, ba = (verdict.orders.get(order, OrderVerdict(None)) for order in (AB, BA))
        partial = any(verdict.orders[order].partial for order in orders)
        out.append(judged(row, (ab.verdict, ba.verdict), (ab.votes, ba.votes), orders, partial))
    return out + lost(benchmark, protocol, seed)


def score_verdict_file(
    benchmark: Benchmark,
    path: str,
    *,
    seed: int = 0,
    protocol: Protocol = "both_orders",
    resamples: int = RESAMPLES,
) -> dict[str, Any]:
    """The summary of a verdict file on a benchmark, without a model.

    Raises InputError as `read_verdicts` and `join` do.
    """
    if benchmark.kind == "rated":
        ratings, lost_ratings = _read_ratings(benchmark, path)
        return summarise_rated(benchmark, rated_outcomes(benchmark, ratings), seed, resamples, unjudged=lost_ratings)
    if benchmark.kind == "best_of":
        answers = _read_answers(benchmark, path)
        chosen = best_of_outcomes(benchmark, answers)
        return summarise_best_of(benchmark, chosen, seed, resamples, unjudged=lost_of(benchmark, answers))
    verdicts = read_verdicts(path)
    outcomes = join(benchmark, verdicts, protocol, seed)
    found = ((row.id, verdicts[row.id].quarantined) for row in benchmark.rows)
    unjudged = {identity: reason for identity, reason in found if reason}
    return summarise(benchmark, outcomes, seed, resamples, unjudged=unjudged)


def scored_records(benchmark: Benchmark, path: str) -> Iterator[dict[str, Any]]:
    """What a verdict file says of every id that is scored: the declared columns, rows the loader quarantined last."""
    if benchmark.kind == "rated":
        ratings, lost_ratings = _read_ratings(benchmark, path)
        for row in benchmark.rated:
            why = {"quarantined": lost_ratings[row.id]} if row.id in lost_ratings else {}
            yield {"id": row.id, "rating": ratings[row.id], **why}
        yield from ({"id": f.id, "rating": None, "quarantined": f.reason} for f in benchmark.faulty)
        return
    if benchmark.kind == "best_of":
        answers = _read_answers(benchmark, path)
        yield from ({"id": row.id, **answers[row.id]} for row in benchmark.best_of)
        yield from ({"id": f.id, "choice": None, "quarantined": f.reason} for f in benchmark.faulty)
        return
    verdicts = read_verdicts(path)
    yield from (verdicts[row.id].record() for row in benchmark.rows)
    yield from (Verdict(f.id, None, quarantined=f.reason).record() for f in benchmark.faulty)


def _verdict(identity: str, numbered: Numbered) -> Verdict:
    row, where = numbered.row, numbered.where
    top = _letter(row["verdict"], where, "verdict")
    orders = {}
    for name, value in (row.get("orders") or {}).items():
        if name not in (AB, BA) or not (value is None or isinstance(value, dict)):
            raise InputError(f"{where} column 'orders' has no order {name!r}: ab and ba hold objects")
        if value is not None:
            orders[name] = _order(value, f"{where} order {name}")
    if len(orders) == 2 and both_orders(orders[AB].verdict, orders[BA].verdict)[0] != top:
        raise InputError(f"{where} verdict {top!r} contradicts its two orders")
    return Verdict(identity, top, orders, row.get("quarantined"))


def _order(value: Mapping[str, Any], where: str) -> OrderVerdict:
    votes = value.get("votes")
    count = None
    if votes is not None:
        if not isinstance(votes, dict) or not all(_is_count(votes.get(k, 0)) for k in _VOTES):
            raise InputError(f"{where} votes are not counts of A, B and unparsed")
        count = Count(*(int(votes.get(k, 0)) for k in _VOTES))
    letter = _letter(value.get("verdict"), where, "verdict")
    if count is not None and count.verdict != letter:
        raise InputError(f"{where} verdict {letter!r} is not the majority of its votes")
    return OrderVerdict(letter, count, bool(value.get("partial", False)))


def _read_answers(benchmark: Benchmark, path: str) -> dict[str, dict[str, Any]]:
    sizes = {row.id: len(row.responses) for row in benchmark.best_of}
    ids, out = Ids(), {}
    for numbered in read_numbered(path, {"id": ID}, _ANSWERS):
        identity = ids.own(numbered.row["id"], numbered.where)
        out[identity] = _answer(numbered, sizes.get(identity))
    check_ids(benchmark, out)
    return out


def _read_ratings(benchmark: Benchmark, path: str) -> tuple[dict[str, float | None], dict[str, str]]:
    """(rating by id, {id: reason} of the rows that could not be rated)."""
    ids, ratings, unrated = Ids(), {}, {}
    for numbered in read_numbered(path, {"id": ID, "rating": float}, {"quarantined": str}):
        identity, rating = ids.own(numbered.row["id"], numbered.where), numbered.row["rating"]
        if rating is not None and not _is_rating(rating):
            raise InputError(f"{numbered.where} rating {rating} is no rating")
        ratings[identity] = rating
        if numbered.row.get("quarantined"):
            unrated[identity] = numbered.row["quarantined"]
    check_ids(benchmark, ratings)
    return ratings, {row.id: unrated[row.id] for row in benchmark.rated if row.id in unrated}


def _answer(numbered: Numbered, size: int | None) -> dict[str, Any]:
    row, where = numbered.row, numbered.where
    if "choice" not in row and "ratings" not in row:
        raise InputError(f"{where} has neither column 'choice' nor 'ratings'")
    choice, ratings = row.get("choice"), row.get("ratings")
    if choice is not None and size is not None and not 0 <= choice < size:
        raise InputError(f"{where} choice {choice} is outside 0 to {size - 1}")
    if ratings is not None:
        if not all(r is None or _is_rating(r) for r in ratings):
            raise InputError(f"{where} ratings are not numbers or null")
        if size is not None and len(ratings) != size:
            raise InputError(f"{where} has {len(ratings)} ratings for {size} responses")
    answer: dict[str, Any] = {"choice": choice} if ratings is None else {"ratings": ratings}
    return answer | ({"quarantined": row["quarantined"]} if row.get("quarantined") else {})


def _letter(value: Any, where: str, name: str) -> str | None:
    if value is None or value in ("A", "B"):
        return value if value is None else str(value)
    raise InputError(f"{where} {name} {str(value)[:40]!r} is neither A, B nor null")


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _LARGEST


def _is_rating(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= _LARGEST
