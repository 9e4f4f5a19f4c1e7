"""What judging took: attempts add up, a finished set is not timed anew, shared rows are one verdict."""

from __future__ import annotations

from pathlib import Path

import pytest

from ray_app.benchmarks import load_benchmark
from ray_app.errors import InputError
from ray_app.generation.runner import StageResult
from ray_app.judging.gold_set import added
from ray_app.judging.protocol import Answers
from ray_app.judging.spending import Timing, cost_of, kept, timed, verdicts_of

MTBENCH = Path(__file__).resolve().parents[2] / "fixtures" / "benchmarks" / "mtbench_human.jsonl"


def result(units: int, resumed: int, seconds: float, start: float = 0.0) -> StageResult:
    extra = {"resumed_units": resumed, "weights": "started", "weights_seconds": start}
    return StageResult(units, units, {}, 1000, 100, seconds, extra)


def test_engine_start_is_told_apart() -> None:
    assert timed(result(10, 4, 30.0, 20.0), gpus=2) == Timing(6, 10.0, 20.0, 20.0)
    assert timed(result(10, 4, 30.0)).gpu_seconds is None


def test_attempts_add_up_and_a_finished_set_stays_as_it_was(tmp_path: Path) -> None:
    folder = str(tmp_path)
    first = kept(folder, timed(result(10, 0, 8.0, 3.0), gpus=1))
    both = kept(folder, timed(result(16, 10, 4.0, 1.0), gpus=2))
    assert (first, both) == (Timing(10, 5.0, 3.0, 5.0), Timing(16, 8.0, 4.0, 11.0))
    assert kept(folder, timed(result(16, 16, 0.5), gpus=0)) == both


def test_a_damaged_timing_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "timing.json").write_text('{"hours": 3}')
    with pytest.raises(InputError, match=r"timing\.json is damaged") as caught:
        kept(str(tmp_path), Timing(1, 1.0))
    assert "\n" not in str(caught.value)


def test_rows_with_the_same_texts_are_one_verdict() -> None:
    benchmark = load_benchmark(f"mtbench_human={MTBENCH}")
    assert len(benchmark.rows) == 4
    assert verdicts_of(benchmark, Answers({}, {})) == 2, "three humans voted on the first pair"
    lost = {row.id: "prompt_too_long" for row in benchmark.rows if row.subset == "turn_2"}
    assert verdicts_of(benchmark, Answers({}, lost)) == 1
    found = cost_of(result(4, 0, 10.0), benchmark, Answers({}, {}), Timing(4, 10.0))
    assert found["per_1000"] == pytest.approx({"seconds": 5000, "prompt_tokens": 5e5, "completion_tokens": 5e4})


def test_best_of_sets_of_two_jobs_know_what_was_resumed() -> None:
    both = added([result(10, 4, 30.0, 20.0), result(5, 5, 1.0)])
    assert timed(both, gpus=1) == Timing(6, 11.0, 20.0, 11.0)
