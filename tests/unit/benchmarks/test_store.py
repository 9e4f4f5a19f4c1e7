"""The row store behaves like the list of its rows, and does not hold them in memory."""

from __future__ import annotations

import pickle
import tracemalloc

import pytest

from ray_app.base.schema import PairwiseRow
from ray_app.benchmarks.store import RowStore


def row(i: int, size: int = 1) -> PairwiseRow:
    messages = [{"role": "user", "content": f"q{i}"}]
    return PairwiseRow(f"id{i}", f"s{i % 3}", messages, "a" * size, f"b{i}", "A" if i % 2 else None, f"g{i}")  # type: ignore[arg-type]


def store(rows: list[PairwiseRow]) -> RowStore:
    made = RowStore()
    for item in rows:
        made.append(item)
    return made.freeze()


def test_it_is_the_sequence_of_its_rows() -> None:
    rows = [row(i) for i in range(1300)]
    made = store(rows)
    assert len(made) == 1300
    assert list(made) == rows
    assert [made[i] for i in (0, 511, 512, 1299, -1)] == [rows[i] for i in (0, 511, 512, 1299, -1)]
    assert made[510:514] == rows[510:514]
    assert rows[7] in made
    with pytest.raises(IndexError):
        made[1300]


def test_batches_also_close_by_size() -> None:
    rows = [row(i, 1_500_000) for i in range(5)]
    made = store(rows)
    assert [len(item.response_a) for item in made] == [1_500_000] * 5
    assert made[4] == rows[4]


def test_an_empty_store() -> None:
    assert list(store([])) == []
    assert len(store([])) == 0


def test_it_pickles_by_its_rows() -> None:
    rows = [row(i) for i in range(3)]
    assert list(pickle.loads(pickle.dumps(store(rows)))) == rows


def test_many_rows_take_little_memory() -> None:
    tracemalloc.start()
    made = RowStore()
    for i in range(20_000):
        made.append(row(i, 2_000))
    made.freeze()
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # The rows hold 40 MB of text.
    assert held < 4_000_000
    assert made[19_999].id == "id19999"
