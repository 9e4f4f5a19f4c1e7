"""Best-of rows judged by a model (RewardBench 2): four responses by letter; the Ties subset, or all, by ratings.

DIR/shard-*.parquet           votes by letter (schema VOTES), in the seeded order in which the row was shown
DIR/ratings/shard-*.parquet   scores (schema RATINGS), one side a response
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from ray_app.benchmarks import Benchmark, BestOfRow
from ray_app.benchmarks.rewardbench2 import TIES, shown_order
from ray_app.config import SamplingSettings
from ray_app.judge_card import Judge
from ray_app.judging import KEY, quarantined_ids, spool
from ray_app.run.storage import join, list_files, read_parquet
from ray_app.runner import WEIGHTS, Job, Runner, StageResult
from ray_app.schema import VOTES, pack_text
from ray_app.scoring import best_of_scoring_units, mean_scores, score_rows, unscored_ids

LETTERS = "ABCD"
SHOWN = "shown"
RATINGS_DIR = "ratings"
UNITS = pa.schema(
    [(name, pa.string()) for name in ("benchmark", "id", "order", "instruction")]
    + [("responses", pa.list_(pa.string()))]
)


def judge_rows(
    runner: Runner,
    benchmark: Benchmark,
    directory: str,
    judge: Judge,
    sampling: SamplingSettings,
    votes: int,
    seed: int,
) -> StageResult:
    """Judge every row of a best-of benchmark; votes and scores land as they come, and a second call continues."""
    pointwise = judge.mode == "pointwise"
    results = []
    lettered = by_letter(benchmark, pointwise)
    if lettered:
        spooled = join(directory, "units")
        total = spool(letter_units(benchmark.name, lettered, seed), spooled, UNITS)
        result = runner.run(
            Job(
                stage="evaluation",
                directory=directory,
                schema=VOTES,
                key=KEY,
                source=runner.dataset(spooled),
                total=total,
                program=judge.best_of_program(sampling, votes, seed),
                engine=judge.engine,
                role="judge",
            )
        )
        results.append(result)
    rated = by_ratings(benchmark, pointwise)
    if rated:
        units = best_of_scoring_units(benchmark.name, rated)
        program = judge.scoring_program(sampling, votes, seed)
        folder = join(directory, RATINGS_DIR)
        results.append(score_rows(runner, units=units, directory=folder, program=program, engine=judge.engine))
    return joined(results)


def joined(results: Sequence[StageResult]) -> StageResult:
    """The sums of several results."""
    quarantined: Counter[str] = Counter()
    for result in results:
        quarantined.update(result.quarantined)
    names = ("rows_in", "rows_out", "prompt_tokens", "completion_tokens", "seconds")
    sums = {name: sum(getattr(result, name) for result in results) for name in names}
    loaded = next((result.extra for result in results if "weights" in result.extra), {})
    return StageResult(**sums, quarantined=dict(quarantined), extra={k: loaded[k] for k in WEIGHTS if k in loaded})


def answers_in(directory: str, benchmark: Benchmark, seed: int) -> dict[str, dict[str, Any]]:
    """The answers that the folder's votes and scores give, for every id of the benchmark; quarantined ones say why."""
    ratings = join(directory, RATINGS_DIR)
    lost = quarantined_ids(directory) | unscored_ids(ratings)
    answers = answers_of(benchmark, letters_of(directory), mean_scores(ratings), seed)
    answers = {i: {**answer, "quarantined": lost[i]} if i in lost else answer for i, answer in answers.items()}
    return answers | {f.id: {"choice": None, "quarantined": f.reason} for f in benchmark.faulty}


def by_letter(benchmark: Benchmark, pointwise: bool) -> list[BestOfRow]:
    """The rows that are judged by letter: all but Ties, whose several correct responses no letter can name."""
    return [] if pointwise else [row for row in benchmark.best_of if row.subset != TIES]


def by_ratings(benchmark: Benchmark, pointwise: bool) -> list[BestOfRow]:
    """The other rows."""
    return [row for row in benchmark.best_of if pointwise or row.subset == TIES]


def letter_units(benchmark: str, rows: Iterable[BestOfRow], seed: int) -> Iterator[dict[str, Any]]:
    """One unit a row, its responses in the order shown."""
    for row in rows:
        shown = [row.responses[i] for i in shown_order(row, seed)]
        texts = {"instruction": pack_text(row.instruction), "responses": shown}
        yield {"benchmark": benchmark, "id": row.id, "order": SHOWN, **texts}


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
