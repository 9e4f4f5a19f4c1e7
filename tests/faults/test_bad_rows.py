"""Faults of rows in a real run: each is quarantined with its reason, and nothing else is lost."""

from __future__ import annotations

import json
from collections.abc import Callable

from loop_runs import DEMO, Loop, scripted

Make = Callable[..., Loop]


def test_bad_rows_are_quarantined_with_their_reason(loop: Make) -> None:
    """Empty, no text, twice the same; too long for the context in the pairs and in an evaluation."""
    run = loop(generator=scripted(), judge={**scripted(), "max_model_len": 160})
    good = [json.loads(line) for line in (DEMO / "instructions.jsonl").read_text().splitlines()][:6]
    long = {"id": "long", "instruction": "word " * 400}
    rows = [
        *good,
        {"id": "empty", "instruction": "   "},
        {"id": "null", "instruction": None},
        {"id": "number", "instruction": 7},
        {**good[0], "id": "again"},
        long,
    ]
    source = run.folder / "prompts.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    pairs = [json.loads(line) for line in (DEMO / "validation.jsonl").read_text().splitlines()][:4]
    pairs[2]["response_a"] = "word " * 200
    gold = run.folder / "gold.jsonl"
    gold.write_text("".join(json.dumps(row) + "\n" for row in pairs))

    options = ["--instructions.source", str(source), "--evaluation.validation", f"validation={gold}"]
    run.succeeds(*options, "--generator.max_model_len", "300")

    reasons = {row["id"]: row["reason"] for row in run.rows("instructions", "quarantine")}
    assert reasons == {
        "empty": "empty_instruction",
        "null": "empty_instruction",
        "number": "not_a_text",
        "again": "duplicate",
    }
    (lost,) = run.rows("pairs", "quarantine")
    assert lost["reason"] == "prompt_too_long"
    assert "the model takes 300" in lost["detail"]
    assert len(run.rows("pairs")) == len(good)
    judged = "iter_00/evaluation/validation"
    assert {row["reason"] for row in run.rows(judged, "quarantine")} == {"prompt_too_long"}
    verdicts = [json.loads(line) for line in (run.run / judged / "verdicts.jsonl").read_text().splitlines()]
    assert [verdict["id"] for verdict in verdicts] == [pair["id"] for pair in pairs]
    assert verdicts[2]["verdict"] is None
    summary = json.loads((run.run / judged / "summary.json").read_text())
    assert summary["overall"]["accuracy"]["n"] == len(pairs)
