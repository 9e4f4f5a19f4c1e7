"""PPE's two loaders: votes without ties, and the published pairs of a right and a wrong response."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import ray_app.benchmarks.hub as hub
from ray_app.benchmarks import load_benchmark
from ray_app.benchmarks.ppe import SETS, set_of
from ray_app.errors import InputError

FIXTURES = Path(__file__).parents[2] / "fixtures" / "benchmarks"


def test_votes_name_the_writer_and_ties_are_dropped() -> None:
    benchmark = load_benchmark(f"ppe_preference={FIXTURES / 'ppe_preference.jsonl'}")
    assert [(row.id, row.subset, row.label) for row in benchmark.rows] == [
        ("q1", "English", "A"),
        ("q2", "English", "B"),
        ("q3", "German", "A"),
        ("q4", "other languages", "A"),
    ]
    assert benchmark.dropped == {"tie": 2}
    assert {q["id"]: q["reason"] for q in benchmark.quarantined} == {"q7": "bad_label", "q8": "empty_response_a"}
    assert benchmark.rows[1].response_b == "A crow."


def test_pairs_of_right_and_wrong_responses() -> None:
    benchmark = load_benchmark(f"ppe_correctness={FIXTURES / 'ppe_correctness'}")
    rows = {row.id: row for row in benchmark.rows}
    assert {row.subset for row in benchmark.rows} == set(SETS)
    # Places are counted from 0 in the file and from 1 in its columns: the pair [3, 2] is response_4 and response_3.
    turned = rows["MATH:1:m1/4-3"]
    assert (turned.response_a, turned.response_b, turned.label) == ("6 Yes.", "5 Yes.", "B")
    assert (rows["IFEval:k9:m1/2-1"].label, rows["IFEval:k9:m1/1-2"].label) == ("B", "A")
    assert benchmark.dropped == {"no_pair": 1}, "a question that all responses answer right has none"
    assert {q["id"]: q["reason"] for q in benchmark.quarantined} == {
        "IFEval:k9:m1/1-3": "no_label",
        "IFEval:k9:m1/1-?": "bad_pair",
    }


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("lmarena-ai/PPE-MMLU-Pro-Best-of-K:train", "MMLU-Pro"),
        ("/data/ppe_math_best_of_k/data/train-00000-of-00001.parquet", "MATH"),
        ("mbpp_plus.jsonl", "MBPP-Plus"),
        ("/math/gpqa.jsonl.gz", "GPQA"),
        ("/data/other.jsonl", "other"),
    ],
)
def test_the_set_is_in_the_name(file: str, name: str) -> None:
    assert set_of(file) == name


def test_a_file_of_another_shape_is_one_line() -> None:
    with pytest.raises(InputError, match="line 1 has no column 'scores'") as caught:
        load_benchmark(f"ppe_correctness={FIXTURES / 'rmbench.jsonl'}".replace("rmbench", "ppe_preference"))
    assert "\n" not in str(caught.value)


def test_the_hub_holds_five_sets_and_one_of_them_can_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str | None, str]] = []

    def stream(identity: str, config: str | None, split: str) -> Iterator[dict[str, Any]]:
        asked.append((identity, config, split))
        row = {"question_id": "1", "model_name": "m", "prompt": "q", "response_1": "x", "response_2": "y"}
        yield {**row, "scores": [True, False], "sampled_conflict_pairs": [[0, 1]]}

    monkeypatch.setattr(hub, "_stream", stream)
    benchmark = load_benchmark("ppe_correctness")
    assert [row.subset for row in benchmark.rows] == list(SETS)
    assert asked == [(f"lmarena-ai/PPE-{name}-Best-of-K", None, "train") for name in SETS]
    asked.clear()
    one = load_benchmark("ppe_correctness=lmarena-ai/PPE-MATH-Best-of-K")
    assert [row.subset for row in one.rows] == ["MATH"]
    assert [identity for identity, *_ in asked] == ["lmarena-ai/PPE-MATH-Best-of-K"]
