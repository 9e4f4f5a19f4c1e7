"""Judging sets with gold labels, each into its folder: for `evaluate`, `judge`, the loop and checkpoint selection.

Answers land in the folders as they come, and a second call continues. Several sets are asked about at once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from ray_app.benchmarks import Benchmark
from ray_app.engine.actor import ENGINE_ERROR, TIMEOUT
from ray_app.engine.asking import KILLED
from ray_app.errors import RunError
from ray_app.generation.runner import WEIGHTS, Job, Runner, StageResult
from ray_app.generation.together import run_together
from ray_app.judging.judge import Judge
from ray_app.judging.protocol import STAGE, Answers, Questions, Voting
from ray_app.judging.registry import protocol_for
from ray_app.judging.sharing import spool
from ray_app.run.storage import join

OWN = 2  # units of a set that may be slow, or end engines, without a fault of the engines: a row in both orders
FAILED = (ENGINE_ERROR, TIMEOUT, KILLED)  # reasons of rows that no engine answered


@dataclass(frozen=True)
class GoldSet:
    """A benchmark, the folder of its answers, and its name in the keys of its rows."""

    benchmark: Benchmark
    directory: str
    name: str = ""


def judge_set(
    runner: Runner,
    judge: Judge,
    benchmark: Benchmark,
    voting: Voting,
    directory: str,
    *,
    name: str = "",
    most_errors: float = 1.0,
) -> tuple[StageResult, Answers]:
    """Judge every row; the runner's numbers, and the answers. `name` is the set's, in the keys of its rows."""
    return judge_sets(runner, judge, [GoldSet(benchmark, directory, name)], voting, most_errors)[0]


def judge_sets(
    runner: Runner, judge: Judge, sets: Sequence[GoldSet], voting: Voting, most_errors: float = 1.0
) -> list[tuple[StageResult, Answers]]:
    """Judge every row of every set, as one stream of questions; numbers and answers of each set.

    Raises RunError where a larger share than `most_errors` of a set's units failed in the engines: they would count as
    wrong, and move its figures. The next attempt asks them again.
    """
    jobs: list[Job] = []
    parts: list[slice] = []  # of the jobs: a set may ask in several ways
    for gold in sets:
        asked = protocol_for(judge.mode, gold.benchmark).questions(
            judge, gold.benchmark, voting, gold.name or gold.benchmark.name
        )
        parts.append(slice(len(jobs), len(jobs) + len(asked)))
        jobs += [job_of(runner, questions, judge, voting, gold.directory) for questions in asked]
    results = run_together(runner, jobs)
    for gold, part in zip(sets, parts, strict=True):
        require_answers(gold.name or gold.benchmark.name, added(results[part]), most_errors)
    return [
        (added(results[part]), protocol_for(judge.mode, gold.benchmark).read(gold.directory, gold.benchmark, voting))
        for gold, part in zip(sets, parts, strict=True)
    ]


def job_of(runner: Runner, questions: Questions, judge: Judge, voting: Voting, directory: str) -> Job:
    """The questions as a job of the runner, their units spooled."""
    folder = join(directory, questions.folder) if questions.folder else directory
    spooled = join(folder, "units")
    total = spool(questions.units, spooled, questions.unit_schema)
    return Job(
        stage=STAGE,
        directory=folder,
        schema=questions.schema,
        key=questions.key,
        source=runner.dataset(spooled),
        total=total,
        program=questions.program,
        engine=judge.engine,
        role="judge",
        iteration=voting.iteration,
        units=spooled,
    )


def require_answers(name: str, result: StageResult, most_errors: float) -> None:
    """Raises RunError where too many units of a set failed in the engines, whatever the row is told to have done: many
    slow samples are a slow engine, and many that end engines a broken one. A row of its own may do so in both orders.
    """
    reasons = {reason: result.quarantined.get(reason, 0) for reason in FAILED}
    failed = sum(reasons.values())
    if failed - min(reasons[TIMEOUT] + reasons[KILLED], OWN) > most_errors * result.rows_in:
        told = ", ".join(f"{reason} {count}" for reason, count in reasons.items() if count)
        again = "" if reasons[KILLED] == failed else f"; the same command asks those again that are not {KILLED}"
        again += ", and a higher limit lets the set pass"
        raise RunError(
            f"{name}: {failed} of {result.rows_in} questions failed in the engines ({told}), more than "
            f"max_engine_errors {most_errors:g} allows: its figures would not be those of the judge{again}"
        )


def added(results: Sequence[StageResult]) -> StageResult:
    """The sums of several results; one of them as it is."""
    if len(results) == 1:
        return results[0]
    quarantined: Counter[str] = Counter()
    for result in results:
        quarantined.update(result.quarantined)
    resumed = sum(result.extra.get("resumed_units", 0) for result in results)
    names = ("rows_in", "rows_out", "prompt_tokens", "completion_tokens", "seconds")
    sums = {name: sum(getattr(result, name) for result in results) for name in names}
    loaded = next((result.extra for result in results if "weights" in result.extra), {})
    extra = {"resumed_units": resumed} | {k: loaded[k] for k in WEIGHTS if k in loaded}
    if many := max((result.extra.get("tables_at_once", 0) for result in results), default=0):
        extra["tables_at_once"] = many
    return StageResult(**sums, quarantined=dict(quarantined), extra=extra)
