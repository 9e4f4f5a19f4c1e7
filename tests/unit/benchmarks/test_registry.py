"""Names, paths and limits; hostile files in the common pairwise form (docs/evaluation.md)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import ray_app.benchmarks.hub as hub
from ray_app.benchmarks import load_benchmark
from ray_app.benchmarks.hub import parse_id
from ray_app.errors import InputError


def pair(id: Any = "1", **fields: Any) -> dict[str, Any]:
    return {"id": id, "instruction": "q", "response_a": "x", "response_b": "y", "label": "A"} | fields


def write(path: Path, *rows: dict[str, Any]) -> str:
    path.write_text("\n".join(map(json.dumps, rows)))
    return str(path)


def fault(spec: str) -> str:
    with pytest.raises(InputError) as caught:
        load_benchmark(spec)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_path_alone_is_named_by_its_stem(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.jsonl", pair())
    assert load_benchmark(path).name == load_benchmark(f"pairwise={path}").name == "mine"
    assert load_benchmark(f"other={path}").name == "other"


def test_names_that_are_nearly_known_are_errors(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.jsonl", pair())
    assert "did you mean rewardbench?" in fault(f"rewardbnech={path}")
    assert "did you mean judgebench?" in fault("judgebenhc")
    assert "neither a known name nor a file" in fault("something")
    assert "does not exist" in fault(str(tmp_path / "none.jsonl"))
    assert "needs a file" in fault("pairwise")


def test_limit_counts_scored_rows(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", pair(1), pair(2, label="C"), pair(3), pair(4))
    benchmark = load_benchmark(path, limit=3)
    assert [row.id for row in benchmark.rows] == ["1", "3"]
    assert benchmark.n == 3


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"label": "C"}, "bad_label"),
        ({"label": "a"}, "bad_label"),
        ({"label": None}, "no_label"),
        ({"response_a": ""}, "empty_response_a"),
        ({"response_b": " \n"}, "empty_response_b"),
        ({"instruction": None}, "empty_instruction"),
        ({"response_a": float("nan")}, "empty_response_a"),
        ({"instruction": []}, "empty_instruction"),
        ({"instruction": [{"role": "user"}]}, "not_a_text"),
        ({"response_a": ["x"]}, "not_a_text"),
    ],
)
def test_row_faults_are_quarantined_and_still_count(tmp_path: Path, fields: dict[str, Any], reason: str) -> None:
    benchmark = load_benchmark(write(tmp_path / "a.jsonl", pair("good"), pair("bad", **fields)))
    assert [row.id for row in benchmark.rows] == ["good"]
    assert [(q["id"], q["stage"], q["reason"]) for q in benchmark.quarantined] == [("bad", "evaluation", reason)]
    assert benchmark.n == benchmark.n_in == 2


def test_file_faults(tmp_path: Path) -> None:
    assert "line 2: id '1' occurs twice" in fault(write(tmp_path / "a.jsonl", pair(1), pair("1")))
    assert "line 1 column 'id' is empty" in fault(write(tmp_path / "b.jsonl", pair(None)))
    assert "'label' holds int" in fault(write(tmp_path / "c.jsonl", pair(label=1)))
    incomplete = {k: v for k, v in pair().items() if k != "instruction"}
    assert "no column 'instruction'" in fault(write(tmp_path / "d.jsonl", incomplete))
    assert "no row to judge: 1 bad_label" in fault(write(tmp_path / "e.jsonl", pair(label="C")))
    assert "holds no rows" in fault(write(tmp_path / "f.jsonl"))
    pq.write_table(
        pa.table({"id": ["1"], "instruction": [1], "response_a": [2], "response_b": ["y"]}),
        tmp_path / "g.parquet",
    )
    assert "column 'instruction' holds int64" in fault(str(tmp_path / "g.parquet"))


def test_long_responses_and_message_lists_pass_through_parquet(tmp_path: Path) -> None:
    messages = [[{"role": "user", "content": "hi"}]]
    table = pa.table(
        {
            "id": [7],
            "instruction": messages,
            "response_a": ["x" * 200_000],
            "response_b": ["y"],
            "label": ["B"],
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")
    row = load_benchmark(str(tmp_path / "a.parquet")).rows[0]
    assert (row.id, row.instruction, len(row.response_a), row.label) == ("7", messages[0], 200_000, "B")


def test_unlabelled_rows_can_be_judged(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", pair("1", label=None), {k: v for k, v in pair("2").items() if k != "label"})
    benchmark = load_benchmark(path, labelled=False)
    assert [(row.id, row.label) for row in benchmark.rows] == [("1", None), ("2", None)]


def test_hub_ids() -> None:
    assert parse_id("allenai/reward-bench") == ("allenai/reward-bench", None)
    assert parse_id("hf:org/name:test") == ("org/name", "test")
    assert parse_id("/absolute/path") is None
    assert parse_id("s3://bucket/file") is None


def test_a_hub_dataset_goes_through_the_loader(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def stream(identity: str, config: str | None, split: str) -> Any:
        asked.append((identity, config, split))
        yield {
            "pair_id": f"p-{split}",
            "source": "livebench-math",
            "question": "q",
            "response_A": "x",
            "response_B": "y",
            "label": "B>A",
        }

    monkeypatch.setattr(hub, "_stream", stream)
    assert [row.id for row in load_benchmark("judgebench").rows] == ["p-gpt"]
    assert [row.id for row in load_benchmark("judgebench_claude").rows] == ["p-claude"]
    assert load_benchmark("judgebench=other/set:dev").rows[0].label == "B"
    assert asked[0] == ("ScalerLab/JudgeBench", None, "gpt")
    assert asked[-1] == ("other/set", None, "dev")
    assert "has no column 'id'" in fault("rewardbench")


def test_an_unreachable_hub_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    def refuse(*_: Any, **__: Any) -> Any:
        raise ConnectionError("no route\nmore detail")

    monkeypatch.setattr(datasets, "load_dataset", refuse)
    assert fault("rewardbench") == "dataset allenai/reward-bench split filtered: no route"
