"""Which step becomes the judge."""

import pytest

from ray_app.train.selection import Score, best, boundaries, should_stop


def scores(*accuracies, first=0.5):
    return [Score(step=10 * (i + 1), accuracy=a, first_position_rate=first, n=50) for i, a in enumerate(accuracies)]


def test_the_most_accurate_wins():
    assert best(scores(0.5, 0.7, 0.6)).step == 20


def test_ties_go_to_even_positions_then_to_the_earlier_step():
    tied = [Score(10, 0.7, 0.9, 50), Score(20, 0.7, 0.45, 50), Score(30, 0.7, 0.55, 50)]
    assert best(tied).step == 20


def test_no_candidate_is_an_error():
    with pytest.raises(ValueError, match="no candidate"):
        best([])


@pytest.mark.parametrize(
    ("accuracies", "patience", "stop"),
    [
        ((0.5, 0.6, 0.55), 1, True),
        ((0.5, 0.6, 0.6), 1, False),
        ((0.5, 0.6, 0.55), 2, False),
        ((0.6, 0.5, 0.55), 2, True),
        ((0.6, 0.5, 0.4), 0, False),
        ((0.6,), 1, False),
    ],
)
def test_stops_after_so_many_below_the_best(accuracies, patience, stop):
    assert should_stop(scores(*accuracies), patience) is stop


def test_boundaries_end_with_the_last_step():
    assert boundaries(250, 100) == [100, 200, 250]
    assert boundaries(200, 100) == [100, 200]
    assert boundaries(7, 0) == [7]
