"""Whoever ends engines is found in few tries, and no other is convicted."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ray_app.engine.suspects import CONVICTED_AFTER, Suspects


def tried(rows: int, poison: set[int], largest: int = 512) -> tuple[list[int], list[int], int]:
    """(answered, convicted, engines that ended) of rows that are asked until nobody is suspect."""
    suspects: Suspects[int] = Suspects(largest)
    suspects.add(range(rows))
    answered: list[int] = []
    convicted: list[int] = []
    ended = 0
    while group := suspects.next():
        assert len(group) <= largest
        if any(suspect.row in poison for suspect in group):
            ended += 1
            convicted += suspects.ended(group)
        else:
            answered += [suspect.row for suspect in group]
    return answered, convicted, ended


@given(st.integers(1, 300), st.sets(st.integers(0, 299), max_size=4), st.integers(1, 64))
def test_the_poison_is_convicted_and_no_other(rows: int, poison: set[int], largest: int) -> None:
    answered, convicted, _ = tried(rows, poison, largest)
    there = {row for row in poison if row < rows}
    assert sorted(convicted) == sorted(there)
    assert sorted(answered) == sorted(set(range(rows)) - there)


def test_one_of_a_full_engine_is_found_at_the_cost_of_few() -> None:
    for poison in (0, 77, 511):
        _, convicted, ended = tried(512, {poison})
        assert convicted == [poison]
        assert ended <= 2 + CONVICTED_AFTER  # groups of 64, of 8, of 1


def test_an_engine_that_dies_once_convicts_nobody() -> None:
    suspects: Suspects[str] = Suspects(8)
    suspects.add(["only"])
    assert suspects.ended(suspects.next()) == []
    (again,) = suspects.next()
    assert (again.row, again.ended) == ("only", 1)
    assert suspects.next() == []


def test_parts_of_a_guilty_group_come_after_those_who_are_likely_innocent() -> None:
    suspects: Suspects[int] = Suspects(8)
    suspects.add(range(16))
    suspects.ended(suspects.next())
    order = [[suspect.row for suspect in suspects.next()] for _ in range(9)]
    assert order == [[n, n + 1] for n in range(2, 16, 2)] + [[0], [1]]


def test_who_is_left_can_be_told_that_it_is_over() -> None:
    suspects: Suspects[int] = Suspects(8)
    suspects.add(range(3))
    suspects.next()
    suspects.add([9])
    assert sorted(suspects.everyone()) == [1, 2, 9]
    assert suspects.next() == []
