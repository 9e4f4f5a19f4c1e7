"""Pointwise judging: a judge scores single responses from 1 to 10 (the paper's open question, section 7).

DIR/units/           one instruction with its responses a row
DIR/shard-*.parquet  one row a score (schema RATINGS); the unit of resume is (benchmark, id)
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import pyarrow as pa

from ray_app.base.prompts import Prompt
from ray_app.base.schema import RATINGS, SCORES, Message, PairwiseRow, pack_text
from ray_app.base.verdict import SCORES as SCORE_VERDICTS
from ray_app.benchmarks import Benchmark, BestOfRow
from ray_app.generation.programs.rows import SIDES, score_messages, score_unit
from ray_app.generation.programs.score import ScoreProgram
from ray_app.judging.judge import Judge
from ray_app.judging.pairwise import HEADLINE
from ray_app.judging.protocol import JUDGMENTS_STAGE, Answers, PairProtocol, Questions, Voting
from ray_app.judging.rejection_sampling import Choice, Rule, choose_scored
from ray_app.judging.settings import JudgingSettings
from ray_app.judging.sharing import quarantined_units, row_of, sources_of, with_sources
from ray_app.metrics import Outcome, similarity, summarise
from ray_app.metrics.outcome import lost, scored
from ray_app.run.storage import list_files, read_parquet

KEY = ("benchmark", "id")
UNITS = pa.schema(
    [(name, pa.string()) for name in ("benchmark", "id", "instruction")]
    + [(name, pa.list_(pa.string())) for name in ("sides", "responses")]
)

Means = Mapping[str, Mapping[str, float | None]]


class Pointwise(PairProtocol):
    """A score from 1 to 10 for each response alone; the higher mean wins."""

    prompt_setting = "judge_single"
    verdicts = SCORE_VERDICTS
    ends_in = "a score from [[1]] to [[10]]"
    parser = "the last [[1]] to [[10]] after any </think>"
    units_per_pair = 1
    pair_schema = SCORES
    pair_key = ("pair_id",)
    verdict_column = "score"
    part = "side"
    shows_both = False
    fingerprinted: ClassVar[Mapping[str, str]] = {"mode": "pointwise"}
    has_preferences = False

    def questions(self, judge: Judge, benchmark: Benchmark, voting: Voting, name: str) -> list[Questions]:
        units = pairwise_scoring_units(name, benchmark.rows)
        return [Questions(units, UNITS, RATINGS, KEY, self.voting_program(judge, voting))]

    def read(self, directory: str, benchmark: Benchmark, voting: Voting) -> Answers:
        return scores_of(directory, benchmark.rows)

    def records(self, benchmark: Benchmark, answers: Answers, voting: Voting) -> Iterator[dict[str, Any]]:
        faults = {**answers.lost, **{fault.id: fault.reason for fault in benchmark.faulty}}
        return score_records(benchmark.ids(), answers.of, faults)

    def outcomes(self, benchmark: Benchmark, answers: Answers, voting: Voting) -> list[Outcome]:
        return pointwise_outcomes(benchmark, answers.of, voting.seed)

    def summary(
        self, benchmark: Benchmark, answers: Answers, voting: Voting, outcomes: Sequence[Outcome] | None = None
    ) -> dict[str, Any]:
        outcomes = self.outcomes(benchmark, answers, voting) if outcomes is None else outcomes
        summary = summarise(benchmark, outcomes, seed=voting.seed, unjudged=answers.lost)
        return summary | {"protocol": "pointwise", "votes": voting.votes}

    def headline(self, summary: Mapping[str, Any]) -> dict[str, Any]:
        overall = {name: summary["overall"][name] for name in HEADLINE if name in summary["overall"]}
        return overall | similarity.headline(summary)

    def voting_program(self, judge: Judge, voting: Voting, prompt: Prompt | None = None) -> ScoreProgram:
        """`prompt`: another one than the judge's own (best-of rows)."""
        return ScoreProgram(**self.voted(judge, voting, prompt or judge.prompt, self.verdicts), key=KEY)

    def pair_units(self, pair: Mapping[str, Any]) -> list[dict[str, Any]]:
        return [score_unit(pair)]

    def sampling_program(
        self, judge: Judge, settings: JudgingSettings, seed: int, iteration: int, stage: str = JUDGMENTS_STAGE
    ) -> ScoreProgram:
        return ScoreProgram(**self.drawn(judge, settings, seed, iteration, stage), keep_tokens=True)

    def choice(self, files: Sequence[str], rule: Rule) -> Choice:
        return choose_scored(files, rule)

    def pair_prompts(self, pair: Mapping[str, Any], prompt: Prompt) -> Iterator[tuple[tuple[str, str], list[Message]]]:
        for side in SIDES:
            yield (pair["pair_id"], side), score_messages(prompt, pair["instruction"], pair[side])

    def row_units(self, name: str, row: PairwiseRow) -> list[dict[str, Any]]:
        return list(pairwise_scoring_units(name, [row]))

    def record_of(
        self, identity: str, rows: Sequence[Mapping[str, Any]], votes: int, reason: str | None
    ) -> dict[str, Any]:
        sides = dict.fromkeys(row["side"] for row in rows)
        means = {side: mean_of(row["score"] for row in rows if row["side"] == side) for side in sides}
        return score_record(identity, means, reason)

    def points(self, record: Mapping[str, Any]) -> tuple[float | None, float | None]:
        return record["scores"]["a"], record["scores"]["b"]


def pairwise_scoring_units(name: str, rows: Iterable[PairwiseRow]) -> Iterator[dict[str, Any]]:
    """Sides a and b of every row; rows with the same texts, either way round, come once, as the first of them."""
    for row, source in with_sources(rows):
        if row.id == source.id:
            yield scoring_unit(name, row, ["a", "b"], [pack_text(row.response_a), pack_text(row.response_b)])


def scoring_unit(name: str, row: PairwiseRow | BestOfRow, sides: list[str], responses: list[str]) -> dict[str, Any]:
    """One instruction with the packed responses that are scored, one a side."""
    texts = {"instruction": pack_text(row.instruction), "sides": sides, "responses": responses}
    return {"benchmark": name, "id": row.id, **texts}


def scores_of(directory: str, rows: Iterable[PairwiseRow]) -> Answers:
    """Mean scores {id: {side: mean or None}} of every row, also of those that share the scores of another."""
    drawn, faults = mean_scores(directory), unscored_ids(directory)
    means, lost = {}, {}
    for identity, source in sources_of(rows).items():
        if source.id in drawn:
            means[identity] = {source.order(side): mean for side, mean in drawn[source.id].items()}
        if source.id in faults:
            lost[identity] = faults[source.id]
    return Answers(means, lost)


def mean_scores(directory: str) -> dict[str, dict[str, float | None]]:
    """{id: {side: mean of its parsed scores, None without any}}."""
    found: dict[str, dict[str, list[float | None]]] = defaultdict(lambda: defaultdict(list))
    for file in list_files(directory, "shard-*.parquet"):
        for row in read_parquet(file, columns=["id", "side", "score"]).to_pylist():
            found[row["id"]][row["side"]].append(row["score"])
    return {identity: {side: mean_of(scores) for side, scores in sides.items()} for identity, sides in found.items()}


def mean_of(scores: Iterable[float | None]) -> float | None:
    """The mean of the parsed scores; None without any."""
    parsed = [score for score in scores if score is not None]
    return sum(parsed) / len(parsed) if parsed else None


def unscored_ids(directory: str) -> dict[str, str]:
    """{id: reason} of the rows that could not be scored."""
    return {row_of(unit, KEY): reason for unit, reason in quarantined_units(directory)}


def pointwise_outcomes(benchmark: Benchmark, means: Means, seed: int) -> list[Outcome]:
    """The higher mean score wins; equal or missing scores are unparsed. Quarantined rows count as unparsed."""
    rows = [scored(row, means.get(row.id, {}).get("a"), means.get(row.id, {}).get("b")) for row in benchmark.rows]
    return rows + lost(benchmark, "official", seed)


def score_record(identity: str, sides: Mapping[str, float | None], reason: str | None = None) -> dict[str, Any]:
    """One line of a verdict file, with the mean scores behind the verdict."""
    a, b = sides.get("a"), sides.get("b")
    verdict = None if a is None or b is None or a == b else "A" if a > b else "B"
    record = {"id": identity, "verdict": verdict, "inconsistent": False, "scores": {"a": a, "b": b}}
    return record if reason is None else {**record, "quarantined": reason}


def score_records(ids: Iterable[str], means: Means, quarantined: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """A line for every id, in order."""
    return (score_record(identity, means.get(identity, {}), quarantined.get(identity)) for identity in ids)
