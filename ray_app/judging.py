"""Judging a set of pairwise rows with votes: shared by the loop's evaluation, `evaluate` and `judge`.

DIR/units/           the rows as judging units (spooled, so that an input of any size streams)
DIR/shard-*.parquet  one row a vote (schema VOTES); the unit of resume is (benchmark, id, order)

Rows with the same instruction and responses (several human votes on one pair, in MT-Bench) are judged once, under the
first row's id, and share its votes: also rows that have the responses the other way round, whose order `ab` is the
first row's `ba`.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import pyarrow as pa

from ray_app.engine.settings import EngineSettings
from ray_app.programs.judge import JudgeProgram
from ray_app.programs.rows import pairwise_units
from ray_app.run.storage import join, list_files, read_parquet, write_parquet_atomic
from ray_app.runner import Job, Runner, StageResult
from ray_app.schema import AB, BA, VOTES, Letter, PairwiseRow, pair_key
from ray_app.verdict import Count, both_orders, count

UNITS = pa.schema([(n, pa.string()) for n in ("benchmark", "id", "order", "instruction", "first", "second", "gold")])
KEY = ("benchmark", "id", "order")
_SPOOL_ROWS = 256

TURN = {AB: BA, BA: AB, "a": "b", "b": "a"}  # orders; sides of pointwise judging
Tallies = Mapping[str, Mapping[str, Count]]


class Source(NamedTuple):
    """The row whose votes a row shares (its own, as a rule), and whether that one has the responses turned round."""

    id: str
    turned: bool = False

    def order(self, order: str) -> str:
        """The order (pointwise: side) of the source that shows what `order` of the row shows; and the other way."""
        return TURN[order] if self.turned else order


def judge_rows(
    runner: Runner,
    *,
    units: Iterable[dict[str, Any]],
    directory: str,
    program: JudgeProgram,
    engine: EngineSettings,
    role: str = "judge",
    iteration: int | None = None,
) -> StageResult:
    """Judge `units`; votes land in `directory` as they come, and a second call continues."""
    spooled = join(directory, "units")
    total = spool(units, spooled)
    return runner.run(
        Job(
            stage="evaluation",
            directory=directory,
            schema=VOTES,
            key=KEY,
            source=runner.dataset(spooled),
            total=total,
            program=program,
            engine=engine,
            role=role,
            iteration=iteration,
        )
    )


def units_of(
    benchmark: str, rows: Iterable[PairwiseRow], orders: Mapping[str, tuple[str, ...]] | None = None
) -> Iterator[dict[str, Any]]:
    """Both orders of every row, or those that `orders` names by id (the official protocol: one).

    An order of the same texts comes once, under the id and label of the first row with them.
    """
    labels: dict[str, Letter | None] = {}
    seen: set[tuple[str, str]] = set()
    for row, source in with_sources(rows):
        label = labels.setdefault(source.id, row.label)  # the source is the first row with these texts
        asked = [source.order(order) for order in (orders[row.id] if orders else (AB, BA))]
        wanted = tuple(order for order in asked if (source.id, order) not in seen)
        seen.update((source.id, order) for order in wanted)
        sides = (row.response_b, row.response_a) if source.turned else (row.response_a, row.response_b)
        judged_as = dataclasses.replace(row, id=source.id, label=label, response_a=sides[0], response_b=sides[1])
        yield from pairwise_units(benchmark, judged_as, wanted)


def with_sources(rows: Iterable[PairwiseRow]) -> Iterator[tuple[PairwiseRow, Source]]:
    """Every row with the row whose votes it shares."""
    first: dict[str, tuple[str, bool]] = {}
    for row in rows:
        key, turned = pair_key(row)
        identity, first_turned = first.setdefault(key, (row.id, turned))
        yield row, Source(identity, turned != first_turned)


def spool(units: Iterable[dict[str, Any]], directory: str, schema: pa.Schema = UNITS) -> int:
    """Write units as Parquet files of at most 256 rows and return how many units there are.

    Deterministic, so a resumed run writes the same files again.
    """
    stream, total = iter(units), 0
    for index in itertools.count():
        chunk = list(itertools.islice(stream, _SPOOL_ROWS))
        if not chunk:
            return total
        total += len(chunk)
        table = pa.Table.from_pylist(chunk, schema=schema)
        write_parquet_atomic(table, join(directory, f"shard-{index:05d}.parquet"))
    return total


def sources_of(rows: Iterable[PairwiseRow]) -> dict[str, Source]:
    """{id: under which id, and which way round, its texts were judged}."""
    return {row.id: source for row, source in with_sources(rows)}


def results_of(
    directory: str, rows: Iterable[PairwiseRow], orders: Mapping[str, tuple[str, ...]] | None = None
) -> tuple[dict[str, dict[str, Count]], dict[str, str]]:
    """(tallies, {id: reason of its quarantine}) of every row, also of those that share the votes of another."""
    drawn, faults = tallies_of(directory), quarantined_ids(directory)
    judged_as = sources_of(rows)
    tallies = {identity: counts for identity, counts in drawn.items() if identity not in judged_as}
    for identity, source in judged_as.items():
        asked = orders[identity] if orders else (AB, BA)
        found = drawn.get(source.id, {})
        counts = {order: found[source.order(order)] for order in asked if source.order(order) in found}
        if counts:
            tallies[identity] = counts
    return tallies, {identity: faults[source.id] for identity, source in judged_as.items() if source.id in faults}


def tallies_of(directory: str) -> dict[str, dict[str, Count]]:
    """{id: {order: Count}} of every vote in `directory`, without reading the texts."""
    drawn: dict[str, dict[str, list[str | None]]] = defaultdict(lambda: defaultdict(list))
    for file in list_files(directory, "shard-*.parquet"):
        for vote in read_parquet(file, columns=["id", "order", "verdict"]).to_pylist():
            drawn[vote["id"]][vote["order"]].append(vote["verdict"])
    return {i: {order: count(votes) for order, votes in orders.items()} for i, orders in drawn.items()}


def quarantined_ids(directory: str) -> dict[str, str]:
    """{id: reason} of the rows that could not be judged in at least one order."""
    faults: dict[str, str] = {}
    for file in list_files(directory, "quarantine-*.parquet"):
        for fault in read_parquet(file, columns=["id", "reason"]).to_pylist():
            faults[fault["id"].split(":", 1)[-1].rsplit(":", 1)[0]] = fault["reason"]
    return faults


def verdict_record(
    identity: str,
    orders: Mapping[str, Count],
    k: int,
    reason: str | None = None,
    asked: tuple[str, ...] = (AB, BA),
) -> dict[str, Any]:
    """One line of a verdict file (design §5). An order that was asked for but never judged has a null verdict and no
    votes; one that was not asked for (the official protocol asks for one) is absent.
    """
    ab, ba = orders.get(AB, Count()), orders.get(BA, Count())
    if len(asked) == 2:
        verdict, inconsistent = both_orders(ab.verdict, ba.verdict)
    else:
        # Verdicts of an order are positional; in `ba` the first response is response_b.
        only = ab.verdict if asked == (AB,) else {"A": "B", "B": "A"}.get(ba.verdict or "")
        verdict, inconsistent = only, False
    record: dict[str, Any] = {
        "id": identity,
        "verdict": verdict,
        "inconsistent": inconsistent,
        "orders": {
            name: {
                "verdict": votes.verdict,
                "votes": {"A": votes.a, "B": votes.b, "unparsed": votes.unparsed},
                **({"partial": True} if 0 < votes.drawn < k else {}),
            }
            for name, votes in ((AB, ab), (BA, ba))
            if name in asked
        },
    }
    return record if reason is None else {**record, "quarantined": reason}


def verdict_records(
    ids: Iterable[str],
    tallies: Tallies,
    k: int,
    quarantined: Mapping[str, str],
    orders: Mapping[str, tuple[str, ...]] | None = None,
) -> Iterator[dict[str, Any]]:
    """A record for every id, in order; quarantined ones say why they are unparsed. `orders` as in `units_of`."""
    for identity in ids:
        asked = (orders or {}).get(identity, (AB, BA))
        yield verdict_record(identity, tallies.get(identity, {}), k, quarantined.get(identity), asked)
