"""Rated sets: single responses with human scores, which a pointwise judge rates on its own scale.

DIR/shard-*.parquet  one row a score (schema RATINGS)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ray_app.base.schema import RATINGS, pack_text
from ray_app.benchmarks import Benchmark
from ray_app.judging import pointwise
from ray_app.judging.judge import Judge
from ray_app.judging.pointwise import Pointwise, mean_scores, unscored_ids
from ray_app.judging.protocol import Answers, JudgingProtocol, Questions, Voting
from ray_app.metrics.correlation import rated_outcomes, summarise_rated
from ray_app.metrics.outcome import Outcome

SIDE = "a"


class Rated(JudgingProtocol):
    """A score for each response, set against the human one."""

    judges_pairs = False

    def questions(self, judge: Judge, benchmark: Benchmark, voting: Voting, name: str) -> list[Questions]:
        program = Pointwise().voting_program(judge, voting)
        return [Questions(rated_units(name, benchmark), pointwise.UNITS, RATINGS, pointwise.KEY, program)]

    def read(self, directory: str, benchmark: Benchmark, voting: Voting) -> Answers:
        ratings = {identity: sides.get(SIDE) for identity, sides in mean_scores(directory).items()}
        return Answers(ratings, unscored_ids(directory))

    def records(self, benchmark: Benchmark, answers: Answers, voting: Voting) -> Iterator[dict[str, Any]]:
        for row in benchmark.rated:
            lost = {"quarantined": answers.lost[row.id]} if row.id in answers.lost else {}
            yield {"id": row.id, "rating": answers.of.get(row.id), **lost}
        yield from ({"id": fault.id, "rating": None, "quarantined": fault.reason} for fault in benchmark.faulty)

    def summary(
        self, benchmark: Benchmark, answers: Answers, voting: Voting, outcomes: Sequence[Outcome] | None = None
    ) -> dict[str, Any]:
        rated = rated_outcomes(benchmark, answers.of)
        return summarise_rated(benchmark, rated, voting.seed, votes=voting.votes, unjudged=answers.lost)

    def headline(self, summary: Mapping[str, Any]) -> dict[str, Any]:
        return {name: summary["overall"][name] for name in ("spearman", "unparsed_rate")}


def rated_units(name: str, benchmark: Benchmark) -> Iterator[dict[str, Any]]:
    """One unit a response."""
    for row in benchmark.rated:
        texts = {"instruction": pack_text(row.instruction), "sides": [SIDE], "responses": [pack_text(row.response)]}
        yield {"benchmark": name, "id": row.id, **texts}
