"""Files of several responses a prompt: what is read, what is refused, which pairs they make."""

from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from ray_app.benchmarks.responses import as_pairs, candidates, read_candidates
from ray_app.errors import InputError


def write(folder: Path, *rows: dict[str, Any]) -> str:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def every(count: int) -> list[tuple[int, int]]:
    return list(combinations(range(count), 2))


def test_pairs_are_all_couples_of_a_row_in_order(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        {"id": "a", "instruction": "q", "responses": ["x", "y", "z"]},
        {"id": 7, "instruction": "p", "responses": ["x", ""]},
        {"id": "c", "instruction": [{"role": "user", "content": "q"}], "responses": ["x", "x"]},
    )
    benchmark, shapes = as_pairs(path, None, every)
    assert [row.id for row in benchmark.rows] == ["a/0-1", "a/0-2", "a/1-2", "c/0-1"]
    assert (benchmark.rows[1].response_a, benchmark.rows[1].response_b) == ("x", "z")
    assert [(shape.id, shape.count, shape.fault) for shape in shapes] == [
        ("a", 3, None),
        ("7", 0, "empty_response"),
        ("c", 2, None),
    ]


def test_prompt_is_another_name_and_ids_are_made_where_there_are_none(tmp_path: Path) -> None:
    row = {"prompt": "q", "responses": ["x", "y"]}
    found = list(read_candidates(write(tmp_path, row, row)))
    assert found[0].instruction == "q"
    assert found[1].id == f"{found[0].id}#2"
    assert len(list(read_candidates(write(tmp_path, row, row), limit=1))) == 1


@pytest.mark.parametrize(
    ("instruction", "responses", "fault"),
    [
        ("", ["a", "b"], "empty_instruction"),
        ("q", ["a"], "too_few_responses"),
        ("q", None, "too_few_responses"),
        ("q", ["a", " "], "empty_response"),
        ("q", ["a", 3], "not_a_text"),
        (5, ["a", "b"], "not_a_text"),
    ],
)
def test_a_row_that_cannot_be_ranked_has_its_reason(instruction: Any, responses: Any, fault: str) -> None:
    assert candidates("r", instruction, responses).fault == fault


def test_faults_of_the_file_are_one_line(tmp_path: Path) -> None:
    for rows, named in (
        ([{"instruction": "q"}], "responses"),
        ([{"instruction": "q", "responses": "text"}], "responses"),
        ([{"id": 1, "instruction": "q", "responses": ["a", "b"]}] * 2, "occurs twice"),
        ([{"instruction": "q", "responses": ["a"]}], "holds no row to rank: too_few_responses"),
    ):
        with pytest.raises(InputError, match=named):
            as_pairs(write(tmp_path, *rows), None, every)
