"""RM-Bench's loader: nine comparisons a question, their levels, and what a row of another shape costs."""

from __future__ import annotations

import json
from pathlib import Path

from ray_app.base.schema import content_id
from ray_app.benchmarks import load_benchmark
from ray_app.benchmarks.rmbench import cell_of, styles_of, subset_of

FIXTURE = Path(__file__).parents[2] / "fixtures" / "benchmarks" / "rmbench.jsonl"
RAW = [json.loads(line) for line in FIXTURE.read_text().splitlines()]
ORDER = ("concise", "detailed", "markdown")


def test_every_chosen_response_meets_every_rejected_one() -> None:
    benchmark = load_benchmark(f"rmbench={FIXTURE}")
    assert (len(benchmark.rows), benchmark.n, benchmark.spec) == (45, 54, "rmbench")
    by_id = {row.id: row for row in benchmark.rows}
    for raw in RAW[:5]:
        for i, chosen in enumerate(ORDER):
            for j, rejected in enumerate(ORDER):
                row = by_id[f"{raw['id']}/{chosen}-{rejected}"]
                texts = (raw["chosen"][i], raw["rejected"][j])
                assert (row.response_a, row.response_b) == (texts if row.label == "A" else texts[::-1])
                level = "easy" if i > j else "hard" if i < j else "normal"
                assert row.subset == f"{raw['domain']}-{level}"
                assert row.group == content_id(raw["prompt"])
    assert 15 < sum(row.label == "A" for row in benchmark.rows) < 30, "a hash bit places the chosen response"


def test_a_row_of_another_shape_loses_all_nine_with_a_reason() -> None:
    lost = [q for q in load_benchmark(f"rmbench={FIXTURE}").quarantined if q["id"].startswith("5/")]
    assert len(lost) == 9
    assert {q["reason"] for q in lost} == {"bad_styles"}
    assert lost[0]["detail"] == "1 chosen and 2 rejected responses, not 3 of each"


def test_names_of_subsets_and_comparisons() -> None:
    assert subset_of("Chat/Hard") == "chat-hard"
    assert subset_of("mine") == "mine"
    assert cell_of("safety-refuse-easy") == cell_of("safety-response-easy") == ("safety", "easy")
    assert cell_of("chat") is cell_of("chatty-easy") is cell_of("poems-easy") is None
    assert styles_of("a/b/concise-markdown") == ("concise", "markdown")
    assert styles_of("concise") is styles_of("7/short-long") is None
