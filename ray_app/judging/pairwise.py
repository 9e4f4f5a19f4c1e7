"""Pairwise judging: both responses are shown, in both orders, and the judge ends in a letter.

DIR/units/           the rows as judging units (spooled, so that an input of any size streams)
DIR/shard-*.parquet  one row a vote (schema VOTES); the unit of resume is (benchmark, id, order)
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import pyarrow as pa

from ray_app.base.prompts import Prompt
from ray_app.base.schema import AB, BA, JUDGMENTS, VOTES, Letter, Message, PairwiseRow
from ray_app.base.verdict import Count, both_orders, count
from ray_app.benchmarks import Benchmark
from ray_app.generation.programs.judge import JudgeProgram
from ray_app.generation.programs.rows import judge_messages, pair_units, pairwise_units
from ray_app.judging.judge import Judge
from ray_app.judging.protocol import JUDGMENTS_STAGE, Answers, PairProtocol, Questions, Voting
from ray_app.judging.rejection_sampling import Choice, Rule, choose
from ray_app.judging.settings import JudgingSettings
from ray_app.judging.sharing import quarantined_units, row_of, sources_of, with_sources
from ray_app.metrics import Outcome, outcomes_of, similarity, summarise
from ray_app.metrics.outcome import asked_orders
from ray_app.run.storage import list_files, read_parquet

UNITS = pa.schema([(n, pa.string()) for n in ("benchmark", "id", "order", "instruction", "first", "second", "gold")])
KEY = ("benchmark", "id", "order")
HEADLINE = (
    "accuracy",
    "vote_accuracy",
    "position_consistent_accuracy",
    "unparsed_rate",
    "first_position_rate",
    "mirrored_accuracy",
    "instruction_sensitivity",
    "length_baseline",
    "beyond_longer",
    "overlap_baseline",
    "beyond_overlap",
    "accuracy_against_overlap",
)

Tallies = Mapping[str, Mapping[str, Count]]
Asked = Mapping[str, tuple[str, ...]]  # {id: orders}; both where it is None


class Pairwise(PairProtocol):
    """A verdict by letter about two responses."""

    prompt_setting = "judge"
    verdicts = ("A", "B")
    ends_in = "a verdict, [[A]] or [[B]]"
    parser = "the last [[A]] or [[B]] after any </think>"
    units_per_pair = 2
    pair_schema = JUDGMENTS
    pair_key = ("pair_id", "order")
    verdict_column = "verdict"
    part = "order"
    shows_both = True
    fingerprinted: ClassVar[Mapping[str, str]] = {}  # it was there before there was another
    has_preferences = True

    def questions(self, judge: Judge, benchmark: Benchmark, voting: Voting, name: str) -> list[Questions]:
        units = units_of(name, benchmark.rows, self.orders_asked(benchmark, voting))
        return [Questions(units, UNITS, VOTES, KEY, self.voting_program(judge, voting))]

    def read(self, directory: str, benchmark: Benchmark, voting: Voting) -> Answers:
        return results_of(directory, benchmark.rows, self.orders_asked(benchmark, voting))

    def records(self, benchmark: Benchmark, answers: Answers, voting: Voting) -> Iterator[dict[str, Any]]:
        faults = {**answers.lost, **{fault.id: fault.reason for fault in benchmark.faulty}}
        orders = self.orders_asked(benchmark, voting)
        return verdict_records(benchmark.ids(), answers.of, voting.votes, faults, orders)

    def outcomes(self, benchmark: Benchmark, answers: Answers, voting: Voting) -> list[Outcome]:
        return outcomes_of(
            benchmark,
            answers.of,
            votes=voting.votes,
            protocol=voting.orders,
            seed=voting.seed,
            quarantined=answers.lost,
        )

    def summary(
        self, benchmark: Benchmark, answers: Answers, voting: Voting, outcomes: Sequence[Outcome] | None = None
    ) -> dict[str, Any]:
        outcomes = self.outcomes(benchmark, answers, voting) if outcomes is None else outcomes
        return summarise(benchmark, outcomes, seed=voting.seed, votes=voting.votes, unjudged=answers.lost)

    def headline(self, summary: Mapping[str, Any]) -> dict[str, Any]:
        overall = {name: summary["overall"][name] for name in HEADLINE if name in summary["overall"]}
        return overall | similarity.headline(summary)

    def orders_asked(self, benchmark: Benchmark, voting: Voting) -> dict[str, tuple[str, ...]]:
        return {identity: asked_orders(voting.orders, voting.seed, identity) for identity in benchmark.ids()}

    def voting_program(self, judge: Judge, voting: Voting, prompt: Prompt | None = None) -> JudgeProgram:
        """`prompt`: another one than the judge's own (best-of rows)."""
        shown = prompt or judge.prompt
        asked = self.voted(judge, voting, shown, shown.letters)
        return JudgeProgram(**asked, mode="votes", key=KEY, early_stop=voting.early_stop, parser=voting.parser)

    def pair_units(self, pair: Mapping[str, Any]) -> list[dict[str, Any]]:
        return list(pair_units(pair))

    def sampling_program(
        self, judge: Judge, settings: JudgingSettings, seed: int, iteration: int, stage: str = JUDGMENTS_STAGE
    ) -> JudgeProgram:
        drawn = self.drawn(judge, settings, seed, iteration, stage)
        return JudgeProgram(
            **drawn,
            min_words=settings.min_explanation,
            must_name=settings.must_name,
            must_agree=settings.must_agree,
        )

    def choice(self, files: Sequence[str], rule: Rule) -> Choice:
        return choose(files, rule)

    def pair_prompts(self, pair: Mapping[str, Any], prompt: Prompt) -> Iterator[tuple[tuple[str, str], list[Message]]]:
        for unit in pair_units(pair):
            yield (unit["pair_id"], unit["order"]), judge_messages(prompt, unit)

    def row_units(self, name: str, row: PairwiseRow) -> list[dict[str, Any]]:
        return list(pairwise_units(name, row))

    def record_of(
        self, identity: str, rows: Sequence[Mapping[str, Any]], votes: int, reason: str | None
    ) -> dict[str, Any]:
        orders = dict.fromkeys(row["order"] for row in rows)
        counts = {order: count(row["verdict"] for row in rows if row["order"] == order) for order in orders}
        return verdict_record(identity, counts, votes, reason)

    def points(self, record: Mapping[str, Any]) -> tuple[float | None, float | None]:
        if "quarantined" in record:
            return None, None
        won = {"A": 1.0, "B": 0.0}.get(record["verdict"], 0.5)
        return won, 1 - won


def units_of(name: str, rows: Iterable[PairwiseRow], orders: Asked | None = None) -> Iterator[dict[str, Any]]:
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
        yield from pairwise_units(name, judged_as, wanted)


def results_of(directory: str, rows: Iterable[PairwiseRow], orders: Asked | None = None) -> Answers:
    """Tallies {id: {order: Count}} of every row, also of those that share the votes of another."""
    drawn, faults = tallies_of(directory), quarantined_ids(directory)
    judged_as = sources_of(rows)
    tallies = {identity: counts for identity, counts in drawn.items() if identity not in judged_as}
    for identity, source in judged_as.items():
        asked = orders[identity] if orders else (AB, BA)
        found = drawn.get(source.id, {})
        counts = {order: found[source.order(order)] for order in asked if source.order(order) in found}
        if counts:
            tallies[identity] = counts
    lost = {identity: faults[source.id] for identity, source in judged_as.items() if source.id in faults}
    return Answers(tallies, lost)


def tallies_of(directory: str) -> dict[str, dict[str, Count]]:
    """{id: {order: Count}} of every vote in `directory`, without reading the texts."""
    drawn: dict[str, dict[str, list[str | None]]] = defaultdict(lambda: defaultdict(list))
    for file in list_files(directory, "shard-*.parquet"):
        for vote in read_parquet(file, columns=["id", "order", "verdict"]).to_pylist():
            drawn[vote["id"]][vote["order"]].append(vote["verdict"])
    return {i: {order: count(votes) for order, votes in orders.items()} for i, orders in drawn.items()}


def quarantined_ids(directory: str) -> dict[str, str]:
    """{id: reason} of the rows that could not be judged in at least one order."""
    return {row_of(unit, KEY): reason for unit, reason in quarantined_units(directory)}


def verdict_record(
    identity: str,
    orders: Mapping[str, Count],
    k: int,
    reason: str | None = None,
    asked: tuple[str, ...] = (AB, BA),
) -> dict[str, Any]:
    """One line of a verdict file (docs/evaluation.md). An order that was asked for but never judged has a null verdict
    and no votes; one that was not asked for (the official protocol asks for one) is absent.
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
    ids: Iterable[str], tallies: Tallies, k: int, quarantined: Mapping[str, str], orders: Asked | None = None
) -> Iterator[dict[str, Any]]:
    """A record for every id, in order; quarantined ones say why they are unparsed. `orders` as in `units_of`."""
    for identity in ids:
        asked = (orders or {}).get(identity, (AB, BA))
        yield verdict_record(identity, tallies.get(identity, {}), k, quarantined.get(identity), asked)
