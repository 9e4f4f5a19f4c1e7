"""Model FLOPs, by hand."""

import pytest

from ray_app.train.mfu import mfu, train_flops


def test_flops_of_the_issues_shape_by_hand():
    parameters = 2 * 49152 * 3072 + 28 * (2 * 3072 * 3072 + 2 * 3072 * 1024 + 3 * 3072 * 8192 + 2 * 3072) + 3072
    flops = train_flops(parameters, [4096], layers=28, attention_width=3072)
    # forward: 2 products (scores, values) × 2 FLOPs × length²/2 × width; backward twice that
    attention = 3 * 28 * (2 * 2 * (4096**2 / 2) * 3072)
    assert flops == pytest.approx(6 * parameters * 4096 + attention)


def test_two_rows_attend_apart():
    one = train_flops(0, [200], layers=1, attention_width=8)
    two = train_flops(0, [100, 100], layers=1, attention_width=8)
    assert two == one / 2


def test_mfu_of_the_naive_loop():
    flops = train_flops(3_123_000_000, [4096] * 4, layers=28, attention_width=3072)
    assert mfu(flops, 16384 / 7900 / 2, gpus=2) == pytest.approx(0.166, abs=0.003)
