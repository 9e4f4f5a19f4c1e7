"""Best-of rows (RewardBench 2): four responses by letter; the Ties subset, or all with a pointwise judge, by ratings.

DIR/shard-*.parquet           votes by letter (schema VOTES), in the seeded order in which the row was shown
DIR/ratings/shard-*.parquet   scores (schema RATINGS), one side a response
"""

from __future__ import annotations

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from ray_app.base.schema import RATINGS, VOTES, pack_text
from ray_app.benchmarks import Benchmark, BestOfRow
from ray_app.benchmarks.rewardbench2 import TIES, shown_order
from ray_app.judging import pairwise, pointwise
from ray_app.judging.judge import Judge
from ray_app.judging.pairwise import Pairwise, quarantined_ids
from ray_app.judging.pointwise import Pointwise, mean_scores, scoring_unit, unscored_ids
from ray_app.judging.protocol import Answers, JudgingProtocol, Questions, Voting
from ray_app.metrics.outcome import Outcome
from ray_app.metrics.rewardbench2 import best_of_outcomes, lost_of, summarise_best_of
from ray_app.run.storage import join, list_files, read_parquet

LETTERS = "ABCD"
SHOWN = "shown"
RATINGS_DIR = "ratings"
UNITS = pa.schema(
    [(name, pa.string()) for name in ("benchmark", "id", "order", "instruction")]
    + [("responses", pa.list_(pa.string()))]
)


class BestOf(JudgingProtocol):
    """`letters` is False with a pointwise judge: then every response is rated."""

    judges_pairs = False

    def __init__(self, letters: bool) -> None:
        self.letters = letters

    def questions(self, judge: Judge, benchmark: Benchmark, voting: Voting, name: str) -> list[Questions]:
        asked: list[Questions] = []
        lettered, rated = self.by_letter(benchmark), self.by_ratings(benchmark)
        if lettered:
            drawn = dataclasses.replace(voting, early_stop=False)  # a letter of four is settled by no lead of two
            by_letter = Pairwise().voting_program(judge, drawn, judge.best_of.letter)
            units = letter_units(name, lettered, voting.seed)
            asked.append(Questions(units, UNITS, VOTES, pairwise.KEY, by_letter))
        if rated:
            by_ratings = Pointwise().voting_program(judge, voting, judge.best_of.rating if self.letters else None)
            units = rating_units(name, rated)
            asked.append(Questions(units, pointwise.UNITS, RATINGS, pointwise.KEY, by_ratings, RATINGS_DIR))
        return asked

    def read(self, directory: str, benchmark: Benchmark, voting: Voting) -> Answers:
        ratings = join(directory, RATINGS_DIR)
        found = answers_of(benchmark, letters_of(directory), mean_scores(ratings), voting.seed)
        return Answers(found, quarantined_ids(directory) | unscored_ids(ratings))

    def records(self, benchmark: Benchmark, answers: Answers, voting: Voting) -> Iterator[dict[str, Any]]:
        return ({"id": identity, **answer} for identity, answer in with_reasons(benchmark, answers).items())

    def summary(
        self, benchmark: Benchmark, answers: Answers, voting: Voting, outcomes: Sequence[Outcome] | None = None
    ) -> dict[str, Any]:
        found = with_reasons(benchmark, answers)
        judged = best_of_outcomes(benchmark, found)
        return summarise_best_of(benchmark, judged, voting.seed, votes=voting.votes, unjudged=lost_of(benchmark, found))

    def headline(self, summary: Mapping[str, Any]) -> dict[str, Any]:
        return {"accuracy": summary["overall"]["score"], "unparsed_rate": summary["overall"]["unparsed_rate"]}

    def prompts_covered(self, judge: Judge) -> dict[str, str]:
        return judge.best_of.hashes()

    def by_letter(self, benchmark: Benchmark) -> list[BestOfRow]:
        """The rows that are judged by letter: all but Ties, whose several correct responses no letter can name."""
        return [row for row in benchmark.best_of if row.subset != TIES] if self.letters else []

    def by_ratings(self, benchmark: Benchmark) -> list[BestOfRow]:
        """The other rows."""
        return [row for row in benchmark.best_of if row.subset == TIES or not self.letters]


def letter_units(name: str, rows: Iterable[BestOfRow], seed: int) -> Iterator[dict[str, Any]]:
    """One unit a row, its responses in the order shown."""
    for row in rows:
        shown = [row.responses[i] for i in shown_order(row, seed)]
        texts = {"instruction": pack_text(row.instruction), "responses": shown}
        yield {"benchmark": name, "id": row.id, "order": SHOWN, **texts}


def rating_units(name: str, rows: Iterable[BestOfRow]) -> Iterator[dict[str, Any]]:
    """Sides 0, 1, … of every row: the row's correct responses first."""
    for row in rows:
        yield scoring_unit(name, row, [str(i) for i in range(len(row.responses))], list(row.responses))


def with_reasons(benchmark: Benchmark, answers: Answers) -> dict[str, dict[str, Any]]:
    """The answers, for every id of the benchmark; quarantined ones say why."""
    found = {i: {**a, "quarantined": answers.lost[i]} if i in answers.lost else a for i, a in answers.of.items()}
    return found | {f.id: {"choice": None, "quarantined": f.reason} for f in benchmark.faulty}


def answers_of(
    benchmark: Benchmark, votes: Mapping[str, list[str]], means: Mapping[str, Mapping[str, float | None]], seed: int
) -> dict[str, dict[str, Any]]:
    """{id: {"choice": index or None} or {"ratings": [mean or None, …]}} over the row's own order of responses."""
    answers: dict[str, dict[str, Any]] = {}
    for row in benchmark.best_of:
        if row.id in means:
            sides = means[row.id]
            answers[row.id] = {"ratings": [sides.get(str(i)) for i in range(len(row.responses))]}
        else:
            letter = plurality(votes.get(row.id, []))
            place = shown_order(row, seed)[LETTERS.index(letter)] if letter else None
            answers[row.id] = {"choice": place}
    return answers


def plurality(letters: Iterable[str]) -> str | None:
    """The letter with the most votes; None for a tie, or without any."""
    ranked = Counter(letters).most_common(2)
    if not ranked or (len(ranked) == 2 and ranked[0][1] == ranked[1][1]):
        return None
    return ranked[0][0]


def letters_of(directory: str) -> dict[str, list[str]]:
    """{id: parsed letters} of the votes in a folder."""
    votes: dict[str, list[str]] = defaultdict(list)
    for file in list_files(directory, "shard-*.parquet"):
        for row in read_parquet(file, columns=["id", "verdict"]).to_pylist():
            if row["verdict"] is not None:
                votes[row["id"]].append(row["verdict"])
    return dict(votes)
