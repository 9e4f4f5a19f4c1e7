"""The account of busy and idle devices, by a clock that the test turns."""

from __future__ import annotations

import pytest

from ray_app.system.device_time import DeviceClock, idle_share, summed


class Hand:
    """The hand of a clock."""

    def __init__(self) -> None:
        self.at = 0.0

    def __call__(self) -> float:
        return self.at


@pytest.fixture
def hand() -> Hand:
    return Hand()


def test_busy_and_idle_add_up_to_all_there_was(hand: Hand) -> None:
    clock = DeviceClock(4, hand)
    with clock.cause("engines start"):
        hand.at = 10
    clock.busy(50.0)
    hand.at = 25
    account = clock.take()
    assert account == {
        "devices": 4,
        "seconds": 25,
        "busy": 50,
        "idle": {"engines start": 40, "other": 10},
    }
    assert account["busy"] + sum(account["idle"].values()) == account["seconds"] * account["devices"]


def test_the_innermost_cause_counts(hand: Hand) -> None:
    clock = DeviceClock(1, hand)
    with clock.cause("training starts"):
        hand.at = 2
        with clock.cause("engines sleep"):
            hand.at = 5
        hand.at = 6
    assert clock.take()["idle"] == {"training starts": 3, "engines sleep": 3}


def test_a_cause_that_goes_on_is_counted_in_each_part(hand: Hand) -> None:
    clock = DeviceClock(1, hand)
    clock.wait("model", 1.5)
    hand.at = 2
    assert clock.take()["idle"] == {"model": 1.5, "other": 0.5}
    hand.at = 3
    assert clock.take()["idle"] == {"other": 1}


def test_clocks_that_disagree_make_no_more_time_than_there_was(hand: Hand) -> None:
    clock = DeviceClock(1, hand)
    clock.busy(6.0)
    clock.wait("model", 3.0)
    clock.wait("export", 5.0)
    hand.at = 10
    account = clock.take()
    assert account["idle"] == {"model": 1.5, "export": 2.5}
    clock.busy(99.0)
    hand.at = 11
    assert clock.take() == {"devices": 1, "seconds": 1, "busy": 1, "idle": {}}


def test_takes_are_summed_by_cause() -> None:
    first = {"devices": 2, "seconds": 10.0, "busy": 12.0, "idle": {"other": 3.0, "export": 5.0}}
    second = {"devices": 1, "seconds": 20.0, "busy": 20.0, "idle": {}}
    third = {"devices": 1, "seconds": 10.0, "busy": 8.0, "idle": {"other": 2.0}}
    assert summed([first, second, third]) == {"total": 50, "busy": 40, "idle": {"export": 5, "other": 5}}
    assert idle_share([first, second, third]) == pytest.approx(0.2)
    assert idle_share([]) is None
