"""Outcomes from drawn votes: protocols, quarantined rows, and ids that do not fit."""

from __future__ import annotations

from pathlib import Path

import pytest
from making import votes

from ray_app.benchmarks import Benchmark, load_benchmark
from ray_app.errors import InputError
from ray_app.metrics.outcome import ANY, length, official_order, outcomes_of, scored

FIXTURE = Path(__file__).parents[2] / "fixtures" / "benchmarks" / "pairwise.jsonl"


@pytest.fixture
def benchmark() -> Benchmark:
    return load_benchmark(str(FIXTURE))


def test_both_orders(benchmark: Benchmark) -> None:
    tallies = {row.id: {"ab": votes("A"), "ba": votes("-")} for row in benchmark.rows}
    first = outcomes_of(benchmark, tallies)[0]
    assert (first.verdict_ab, first.verdict_ba, first.orders) == ("A", None, ("ab", "ba"))
    assert (first.length_a, first.length_b) == (4, 35)
    assert first.group == outcomes_of(benchmark, tallies)[1].group
    assert not first.partial


def test_votes_that_stopped_early_are_partial(benchmark: Benchmark) -> None:
    tallies = {row.id: {"ab": votes("AAA"), "ba": votes("BBBB")} for row in benchmark.rows}
    assert all(row.partial for row in outcomes_of(benchmark, tallies, votes=4))
    assert not any(row.partial for row in outcomes_of(benchmark, tallies, votes=3))


def test_rows_quarantined_before_or_after_loading_count_as_unparsed(tmp_path: Path) -> None:
    lines = FIXTURE.read_text().splitlines()
    (tmp_path / "a.jsonl").write_text("\n".join([*lines, lines[0].replace('"p1"', '"bad"').replace('"A"', '"C"')]))
    benchmark = load_benchmark(str(tmp_path / "a.jsonl"))
    tallies = {row.id: {"ab": votes("A"), "ba": votes("B")} for row in benchmark.rows if row.id != "p3"}
    rows = {row.id: row for row in outcomes_of(benchmark, tallies, quarantined=["p3"])}
    assert len(rows) == 6
    assert [rows[i].score() for i in ("p1", "p3", "bad")] == [1, 0, 0]
    assert rows["p3"].verdicts()[0][1] is rows["bad"].verdicts()[0][1] is None
    assert not rows["p3"].partial


def test_missing_and_unknown_ids_are_counted(benchmark: Benchmark) -> None:
    with pytest.raises(InputError) as caught:
        outcomes_of(benchmark, {"p1": {}, "x": {}, "y": {}})
    assert "4 missing ids (first: p2), 2 unknown ids (first: x)" in str(caught.value)


def test_the_official_protocol_asks_one_order_seeded_by_id(benchmark: Benchmark) -> None:
    tallies = {row.id: {official_order(7, row.id): votes("A")} for row in benchmark.rows}
    rows = outcomes_of(benchmark, tallies, protocol="official", seed=7)
    assert [row.orders for row in rows] == [(official_order(7, row.id),) for row in benchmark.rows]
    assert [row.score() for row in rows] == [
        float(row.label == ("A" if row.orders == ("ab",) else "B")) for row in rows
    ]


def test_official_orders_are_balanced_and_change_with_the_seed() -> None:
    orders = [official_order(0, f"row{i}") for i in range(2000)]
    assert 900 < orders.count("ab") < 1100
    assert orders != [official_order(1, f"row{i}") for i in range(2000)]


def test_pointwise_scores_become_order_free_verdicts(benchmark: Benchmark) -> None:
    row = benchmark.rows[0]  # gold A
    made = [scored(row, a, b) for a, b in ((7.5, 3.0), (3.0, 7.5), (5.0, 5.0), (None, 9.0))]
    assert [o.score() for o in made] == [1, 0, 0, 0]
    assert [o.final() for o in made] == ["A", "B", None, None]
    assert made[0].orders == (ANY,)


def test_length_of_messages_is_that_of_their_transcript() -> None:
    assert length("four") == 4
    assert length([{"role": "assistant", "content": "four"}]) == len("Assistant: four")
