"""A set of which many questions failed in the engines gives no figure."""

from __future__ import annotations

import pytest

from ray_app.errors import RunError
from ray_app.generation.runner import StageResult
from ray_app.judging.gold_set import require_answers


def result(errors: int, **more: int) -> StageResult:
    return StageResult(rows_in=200, quarantined={"engine_error": errors, **more})


def test_a_share_within_the_limit_is_counted_and_told() -> None:
    require_answers("validation", result(2, prompt_too_long=50), 0.01)
    require_answers("validation", result(200), 1.0)
    require_answers("validation", StageResult(), 0.0)


def test_more_than_the_limit_ends_the_run_in_one_line() -> None:
    with pytest.raises(RunError, match="validation: 3 of 200 questions failed in the engines") as caught:
        require_answers("validation", result(3), 0.01)
    assert "\n" not in str(caught.value)
    assert "max_engine_errors 0.01" in str(caught.value)


def test_slow_rows_and_rows_that_end_engines_count_too() -> None:
    """Many of them are a fault of the engines, whatever their rows are told to have done."""
    with pytest.raises(RunError, match=r"6 of 200 .* \(engine_error 1, timeout 4, killed_engine 1\)") as caught:
        require_answers("validation", result(1, timeout=4, killed_engine=1), 0.01)
    assert "the same command asks those again that are not killed_engine" in str(caught.value)
    with pytest.raises(RunError) as alone:
        require_answers("validation", result(0, killed_engine=5), 0.01)
    assert "again" not in str(alone.value), "they would end its engines again"
    assert "a higher limit lets the set pass" in str(alone.value)


def test_one_poison_row_does_not_keep_a_small_set_from_its_figures() -> None:
    """It ends engines in both orders, at every attempt: a set of a few rows would never be done."""
    require_answers("validation", StageResult(rows_in=48, quarantined={"killed_engine": 2}), 0.01)
    with pytest.raises(RunError):
        require_answers(
            "validation", StageResult(rows_in=48, quarantined={"killed_engine": 2, "engine_error": 1}), 0.01
        )
