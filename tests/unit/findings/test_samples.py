"""Rows to read: the same for the same seed, whatever the shards; bounded."""

from __future__ import annotations

import random
from typing import Any

from ray_app.findings.samples import LONGEST, Place, at_random, clipped, lowest, merged, sample, shown, vote_samples

ROWS = [{"id": str(i), "length": i} for i in range(500)]


def key(row: Any) -> str:
    return str(row["id"])


def test_random_rows_do_not_depend_on_their_order() -> None:
    drawn = at_random(ROWS, 10, 1, key)
    shuffled = random.Random(0).sample(ROWS, len(ROWS))
    assert at_random(shuffled, 10, 1, key) == drawn
    assert len({key(row) for row in drawn}) == 10
    assert at_random(ROWS, 10, 2, key) != drawn


def test_extremes_and_few_rows() -> None:
    assert [row["length"] for row in lowest(ROWS, 3, lambda row: -row["length"])] == [499, 498, 497]
    assert lowest(ROWS[:2], 5, lambda row: row["length"]) == ROWS[:2]
    assert lowest([], 5, lambda row: 0.0) == []


def test_equal_rows_come_in_their_order() -> None:
    rows = [{"id": i} for i in range(5)]
    assert lowest(rows, 3, lambda row: 0.0) == rows[:3]


def test_empty_fields_are_left_out_and_long_ones_say_so() -> None:
    made = sample("pair", "x", ["at random"], {"a": "", "b": None, "c": 0, "d": "x" * (LONGEST + 7)}, ("t", None, ""))
    assert [name for name, _ in made["fields"]] == ["c", "d"]
    assert shown(made)["fields"][1][1].endswith("… (7 more characters)")
    assert made["tags"] == ["t"]
    assert clipped("short") == "short"


def test_a_wrong_verdict_stands_beside_what_was_shown() -> None:
    vote = {"id": "r", "order": "ba", "sample": 0, "verdict": None, "text": "hm", "correct": False}
    unit = {"instruction": "Q?", "first": "one", "second": "two", "gold": "A"}
    (made,) = vote_samples([vote], {("r", "ba"): unit}, ["at random"], Place(2, "", "test"))
    assert dict(made["fields"]) == {
        **{"instruction": "Q?", "shown first (A)": "one", "shown second (B)": "two", "gold": "A"},
        **{"verdict": "unparsed", "judgment": "hm"},
    }
    assert made["tags"] == ["no verdict", "ba", "iteration 2", "test"]


def test_a_row_stands_once_with_all_its_reasons() -> None:
    """The same id in another iteration is another row."""
    first = sample("judgment", "x", ["at random"], {"judgment": "a"}, (), Place(1))
    second = sample("judgment", "x", ["at random"], {"judgment": "b"}, (), Place(2))
    again = {**first, "why": ["longest", "at random"]}
    assert merged([first, second, again]) == [{**first, "why": ["at random", "longest"]}, second]
