"""Cost of 1,000 verdicts: by hand, scaled by what was timed, and honest about what is not known."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ray_app.metrics.cost import Prices, Spent, cost

SPENT = Spent(
    verdicts=200,
    questions=400,
    timed=400,
    seconds=90.0,
    start_seconds=30.0,
    prompt_tokens=600_000,
    completion_tokens=80_000,
    gpu_seconds=180.0,
)


def test_of_1000_verdicts_by_hand() -> None:
    found = cost(SPENT)
    # 200 verdicts are a fifth of 1,000.
    assert found["per_1000"] == {"seconds": 450, "prompt_tokens": 3_000_000, "completion_tokens": 400_000}
    assert found["notes"] == []
    # Two GPUs for 90 seconds are a twentieth of a GPU's hour: 3 of 60 the hour.
    priced = cost(SPENT, Prices(gpu_hour=3.0))["per_1000"]["price"]
    assert priced == pytest.approx(180 / 3600 * 3.0 * 5)
    tokens = cost(SPENT, Prices(prompt_tokens=2.0, completion_tokens=8.0))["per_1000"]["price"]
    assert tokens == pytest.approx((0.6 * 2 + 0.08 * 8) * 5)


def test_no_prices_no_price() -> None:
    assert "price" not in cost(SPENT)["per_1000"]
    assert "price" not in cost(SPENT, Prices())["per_1000"]


def test_an_attempt_that_was_stopped_scales_seconds_and_price_but_no_tokens() -> None:
    half = replace(SPENT, timed=200, seconds=45.0, gpu_seconds=90.0)
    found, whole = (cost(spent, Prices(gpu_hour=3.0)) for spent in (half, SPENT))
    assert found["per_1000"] == pytest.approx(whole["per_1000"])
    assert found["timed_share"] == 0.5
    assert "50 % of the questions" in found["notes"][0]


def test_what_is_not_known_is_said() -> None:
    untimed = cost(replace(SPENT, timed=0, seconds=0.0, gpu_seconds=None), Prices(gpu_hour=3.0))
    assert (untimed["per_1000"]["seconds"], untimed["per_1000"]["price"]) == (None, None)
    assert any(note.startswith("no price") for note in untimed["notes"])
    assert cost(replace(SPENT, gpu_seconds=0.0), Prices(gpu_hour=3.0))["per_1000"]["price"] is None
    assert "may serve others" in cost(replace(SPENT, endpoint=True))["notes"][0]
    assert set(cost(replace(SPENT, verdicts=0))["per_1000"].values()) == {None}
