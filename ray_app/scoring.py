"""Scoring single responses with k samples each: pointwise `evaluate` and `judge`, ratings of best-of rows, the loop's
evaluation in pointwise mode.

DIR/units/           one instruction with its responses a row
DIR/shard-*.parquet  one row a score (schema RATINGS); the unit of resume is (benchmark, id)
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import pyarrow as pa

from ray_app.benchmarks import Benchmark, BestOfRow
from ray_app.engine.settings import EngineSettings
from ray_app.judging import sources_of, spool, with_sources
from ray_app.metrics.outcome import Outcome, lost, scored
from ray_app.programs.score import ScoreProgram
from ray_app.run.storage import join, list_files, read_parquet
from ray_app.runner import Job, Runner, StageResult
from ray_app.schema import RATINGS, PairwiseRow, pack_text

KEY = ("benchmark", "id")
UNITS = pa.schema(
    [(name, pa.string()) for name in ("benchmark", "id", "instruction")]
    + [(name, pa.list_(pa.string())) for name in ("sides", "responses")]
)

Means = Mapping[str, Mapping[str, float | None]]


def pairwise_scoring_units(benchmark: str, rows: Iterable[PairwiseRow]) -> Iterator[dict[str, Any]]:
    """Sides a and b of every row; rows with the same texts, either way round, come once, as the first of them."""
    for row, source in with_sources(rows):
        if row.id != source.id:
            continue
        responses = [pack_text(text) for text in (row.response_a, row.response_b)]
        yield _unit(benchmark, row, ["a", "b"], responses)


def best_of_scoring_units(benchmark: str, rows: Iterable[BestOfRow]) -> Iterator[dict[str, Any]]:
    """Sides 0, 1, … of every row: the row's correct responses first."""
    for row in rows:
        yield _unit(benchmark, row, [str(i) for i in range(len(row.responses))], list(row.responses))


def _unit(benchmark: str, row: PairwiseRow | BestOfRow, sides: list[str], responses: list[str]) -> dict[str, Any]:
    texts = {"instruction": pack_text(row.instruction), "sides": sides, "responses": responses}
    return {"benchmark": benchmark, "id": row.id, **texts}


def score_rows(
    runner: Runner,
    *,
    units: Iterable[dict[str, Any]],
    directory: str,
    program: ScoreProgram,
    engine: EngineSettings,
    iteration: int | None = None,
) -> StageResult:
    """Score `units`; scores land in `directory` as they come, and a second call continues."""
    spooled = join(directory, "units")
    total = spool(units, spooled, UNITS)
    return runner.run(
        Job(
            stage="evaluation",
            directory=directory,
            schema=RATINGS,
            key=KEY,
            source=runner.dataset(spooled),
            total=total,
            program=program,
            engine=engine,
            role="judge",
            iteration=iteration,
        )
    )


def scores_of(directory: str, rows: Iterable[PairwiseRow]) -> tuple[dict[str, dict[str, float | None]], dict[str, str]]:
    """(mean scores, {id: reason of its quarantine}) of every row, also of those that share the scores of another."""
    drawn, faults = mean_scores(directory), unscored_ids(directory)
    means, lost = {}, {}
    for identity, source in sources_of(rows).items():
        if source.id in drawn:
            means[identity] = {source.order(side): mean for side, mean in drawn[source.id].items()}
        if source.id in faults:
            lost[identity] = faults[source.id]
    return means, lost


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
    faults: dict[str, str] = {}
    for file in list_files(directory, "quarantine-*.parquet"):
        for fault in read_parquet(file, columns=["id", "reason"]).to_pylist():
            faults[fault["id"].split(":", 1)[-1]] = fault["reason"]
    return faults


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
