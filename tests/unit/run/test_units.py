"""A set of units in 8 bytes each: what is left of a table."""

from __future__ import annotations

import pickle
from typing import Any

import pyarrow as pa
import pytest

from ray_app.base.schema import unit_id
from ray_app.run.units import SeenUnits, Units, unit_names


def table(*numbers: int) -> pa.Table:
    return pa.table({"pair_id": [f"p{n}" for n in numbers], "order": pa.array([n % 2 for n in numbers], pa.int32())})


KEY = ("pair_id", "order")


@pytest.mark.parametrize("key", [("pair_id",), ("order",), KEY, ("order", "pair_id")])
def test_units_are_named_as_programs_name_them(key: tuple[str, ...]) -> None:
    rows = table(1, 2, 3)
    assert unit_names(rows, key).to_pylist() == [unit_id(row, key) for row in rows.to_pylist()]


@pytest.mark.parametrize(
    ("done", "left"),
    [((), (1, 2, 3)), ((2,), (1, 3)), ((1, 2, 3, 4), ()), ((0, 9), (1, 2, 3)), ((3, 3, 1, 1), (2,))],
)
def test_what_is_left(done: tuple[int, ...], left: tuple[int, ...]) -> None:
    units = Units.of([unit_names(table(*done[:2]), KEY), unit_names(table(*done[2:]), KEY)])
    assert len(units) == len(set(done))
    there: Any = pickle.loads(pickle.dumps(units))
    assert there.left_of(table(1, 2, 3), KEY).to_pylist() == table(*left).to_pylist()


def test_nothing_is_left_of_nothing() -> None:
    assert len(Units.of([])) == 0
    assert Units.of([]).left_of(table(1), KEY) == table(1)
    assert Units.of([unit_names(table(1), KEY)]).left_of(table(), KEY).num_rows == 0


def test_many_units_take_little_and_none_is_taken_for_another() -> None:
    names = pa.array([f"{n:016x}:chosen_first" for n in range(100_000)])
    units = Units.of([names])
    assert len(units) == 100_000
    assert units.hashes.nbytes == 800_000
    others = pa.table({"unit": [f"{n:016x}:rejected_first" for n in range(100_000)]})
    assert units.left_of(others, ["unit"]).num_rows == 100_000
    assert units.left_of(pa.table({"unit": names}), ["unit"]).num_rows == 0


def test_what_a_writer_was_given_is_known_and_old_names_take_8_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SeenUnits, "NEWEST", 64)
    seen = SeenUnits()
    names = [f"{n:016x}:chosen_first" for n in range(10_000)]
    for name in names:
        seen.add(name)
    assert len(seen) == 10_000
    assert len(seen.newest) < 64, "no more names are held, however many came"
    assert sum(part.nbytes for part in seen.older) == 8 * (10_000 - len(seen.newest))
    assert len(seen.older) < 9, "few parts to look through"
    assert seen.known(names) == [True] * 10_000
    assert seen.known([f"{n:016x}:rejected_first" for n in range(1000)]) == [False] * 1000
    assert names[0] in seen
    assert "other" not in seen
    assert seen.known([]) == []
