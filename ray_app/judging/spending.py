"""What judging a set took, from the runner's numbers: the block `cost` of its summary (docs/evaluation.md)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ray_app.benchmarks import Benchmark
from ray_app.errors import InputError, first_line
from ray_app.generation.runner import StageResult
from ray_app.judging.protocol import Answers
from ray_app.judging.sharing import sources_of
from ray_app.metrics.cost import Prices, Spent, cost
from ray_app.run import storage

TIMING = "timing.json"  # in a set's folder: seconds of the attempts that ended


@dataclass(frozen=True)
class Timing:
    """Sums over attempts: questions answered, wall seconds of that, of engine starts before it, and seconds x GPUs."""

    questions: int = 0
    seconds: float = 0.0
    start_seconds: float = 0.0
    gpu_seconds: float | None = None

    def plus(self, other: Timing) -> Timing:
        """Both together."""
        gpus = [t.gpu_seconds for t in (self, other) if t.gpu_seconds is not None]
        return Timing(
            self.questions + other.questions,
            self.seconds + other.seconds,
            self.start_seconds + other.start_seconds,
            sum(gpus) if gpus else None,
        )


def timed(result: StageResult, gpus: float | None = None) -> Timing:
    """The timing of one attempt, on so many GPUs; nothing where it had nothing left to ask."""
    fresh = result.rows_in - int(result.extra.get("resumed_units", 0))
    if fresh <= 0:
        return Timing()
    start = min(float(result.extra.get("weights_seconds", 0.0)), result.seconds)
    seconds = result.seconds - start
    return Timing(fresh, seconds, start, None if gpus is None else seconds * gpus)


def kept(folder: str, attempt: Timing) -> Timing:
    """This attempt with those before it, written into the set's folder. Raises InputError for a damaged file there."""
    uri = storage.join(folder, TIMING)
    try:
        before = Timing(**storage.read_json(uri)) if storage.exists(uri) else Timing()
    except (ValueError, TypeError) as fault:
        raise InputError(f"{uri} is damaged: {first_line(fault)}; without it nothing but seconds is lost") from fault
    both = before.plus(attempt)
    if attempt.questions:
        storage.write_json_atomic(uri, both.__dict__)
    return both


def cost_of(
    result: StageResult,
    benchmark: Benchmark,
    answers: Answers,
    timing: Timing,
    *,
    endpoint: bool = False,
    prices: Prices | None = None,
) -> dict[str, Any]:
    """The block `cost` of a summary."""
    spent = Spent(
        verdicts=verdicts_of(benchmark, answers),
        questions=result.rows_in,
        timed=timing.questions,
        seconds=timing.seconds,
        start_seconds=timing.start_seconds,
        prompt_tokens=result.prompt_tokens,
        completion_tokens=result.completion_tokens,
        gpu_seconds=timing.gpu_seconds,
        endpoint=endpoint,
    )
    return cost(spent, prices)


def verdicts_of(benchmark: Benchmark, answers: Answers) -> int:
    """Rows that were judged; those with the same texts are one."""
    pairs = {source.id for id, source in sources_of(benchmark.rows).items() if id not in answers.lost}
    others = [row.id for row in benchmark.best_of] + [row.id for row in benchmark.rated]
    return len(pairs) + sum(identity not in answers.lost for identity in others)
