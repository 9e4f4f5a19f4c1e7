"""Accuracy by the similarity of a pair's two instructions, against a few lines of its own."""

from __future__ import annotations

import random

import pytest

from ray_app.base.schema import PairwiseRow
from ray_app.benchmarks import Benchmark
from ray_app.metrics import summarise
from ray_app.metrics.outcome import Outcome
from ray_app.metrics.similarity import THIRDS, accuracy_by_similarity, headline


def outcome(number: int, similarity: float | None, right: tuple[bool, bool], group: str = "") -> Outcome:
    verdicts = ("A" if right[0] else "B", "B" if right[1] else None)
    return Outcome(f"{number}", "", group or f"g{number}", "A", *verdicts, similarity=similarity)


def drawn(seed: int, count: int) -> list[Outcome]:
    """Similar instructions are harder: right less often, the more similar."""
    draw = random.Random(seed)
    rows = []
    for number in range(count):
        similarity = draw.random()
        right = (draw.random() > similarity, draw.random() > similarity)
        rows.append(outcome(number, similarity, right))
    return rows


@pytest.mark.parametrize("count", [3, 30, 200])
def test_thirds_of_the_sorted_rows(count: int) -> None:
    rows = drawn(count, count)
    found = accuracy_by_similarity(rows, seed=1)
    in_order = sorted(rows, key=lambda row: row.similarity or 0)
    assert [part["third"] for part in found] == list(THIRDS)
    start = 0
    for part in found:
        inside = in_order[start : start + part["accuracy"]["n"]]
        start += len(inside)
        assert abs(len(inside) - count / 3) <= 1
        share = sum((row.verdict_ab == "A") + (row.verdict_ba == "B") for row in inside) / (2 * len(inside))
        assert part["accuracy"]["value"] == pytest.approx(share)
        assert (part["from"], part["to"]) == (inside[0].similarity, inside[-1].similarity)
        assert part["accuracy"]["low"] is None or part["accuracy"]["low"] <= share <= part["accuracy"]["high"]
    assert start == count
    if count == 200:
        assert found[0]["accuracy"]["value"] > found[2]["accuracy"]["value"] + 0.3


def test_equal_similarities_are_one_third_and_rows_without_one_do_not_enter() -> None:
    rows = [outcome(i, 0.5, (True, True)) for i in range(6)] + [outcome(9, None, (False, False))]
    (only,) = accuracy_by_similarity(rows, seed=1)
    assert (only["from"], only["to"], only["accuracy"]["n"], only["accuracy"]["value"]) == (0.5, 0.5, 6, 1.0)
    assert accuracy_by_similarity([outcome(1, None, (True, True))], seed=1) == []


def test_a_summary_has_them_where_pairs_have_two_instructions() -> None:
    rows = drawn(7, 60)
    pairs = [PairwiseRow(row.id, "", "x", "a", "b", "A", row.group) for row in rows]
    benchmark = Benchmark(name="heldout", rows=pairs, n_in=len(rows), source="pairs")
    summary = summarise(benchmark, rows, seed=3)
    assert headline(summary).keys() == {f"accuracy_{third}_similar" for third in THIRDS}
    assert [part["accuracy"] for part in summary["similarity_thirds"]] == list(headline(summary).values())
    plain = summarise(benchmark, [outcome(i, None, (True, True)) for i in range(3)], seed=3)
    assert "similarity_thirds" not in plain
    assert headline(plain) == {}
