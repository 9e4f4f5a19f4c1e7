"""The learning rate: warm-up, cosine, both ends."""

import pytest

from ray_app.train.schedule import lr_at

PAPER = {"lr": 1e-6, "lr_min": 2e-7, "warmup": 100, "total": 1000}


def test_warm_up_then_cosine_to_the_minimum():
    assert lr_at(0, **PAPER) == pytest.approx(1e-8)
    assert lr_at(99, **PAPER) == pytest.approx(1e-6)
    assert lr_at(100, **PAPER) == pytest.approx(1e-6)
    assert lr_at(549, **PAPER) == pytest.approx(6e-7, rel=0.01)
    assert lr_at(999, **PAPER) == pytest.approx(2e-7)


def test_it_never_rises_after_the_warm_up():
    rates = [lr_at(step, **PAPER) for step in range(1000)]
    assert rates[100:] == sorted(rates[100:], reverse=True)


@pytest.mark.parametrize("total", [1, 2, 3, 10])
def test_short_runs_reach_the_full_rate(total):
    rates = [lr_at(step, lr=1e-6, lr_min=2e-7, warmup=100, total=total) for step in range(total)]
    assert max(rates) == pytest.approx(1e-6)
    assert min(rates) > 0
