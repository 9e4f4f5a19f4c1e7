"""Pairs made elsewhere, as a user takes them: another run's and a file's, judged and traced like the run's own."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import command
from loop_runs import Loop, scripted


@pytest.mark.long
def test_another_runs_pairs_and_a_labelled_file(loop: Callable[..., Loop], tmp_path: Path) -> None:
    held = {"heldout_fraction": 0.4}
    first = loop(name="first", limit=8, instructions=held, pairs={"mirror": True})
    first.succeeds()
    labelled = tmp_path / "labelled.jsonl"
    sides = {"response_a": "GOOD one", "response_b": "another"}
    rows = [{"instruction": f"Say {i}.", **sides, "label": "A" if i else None} for i in range(12)]
    labelled.write_text("".join(json.dumps(row) + "\n" for row in rows))
    taken = {"from_run": str(first.run), "source": [str(labelled)]}
    absent = {"kind": "vllm", "model": str(tmp_path / "gone")}
    second = loop(name="second", limit=8, instructions=held, pairs=taken, generator=scripted() | absent)
    second.succeeds()
    pairs = second.rows("pairs")
    assert [row for row in pairs if row["strategy"] != "given"] == first.rows("pairs")
    given = [row for row in pairs if row["strategy"] == "given"]
    assert len(given) == 11
    assert json.loads((second.run / "pairs/stage.json").read_text())["quarantined"] == {"no_label": 1}
    judged = {row["id"] for row in second.rows("iter_00/evaluation/heldout")}
    assert judged == {row["pair_id"] for row in pairs if row["split"] == "heldout"}
    out = next(row for row in given if row["split"] == "heldout")
    traced = command("report", str(second.run), "trace", out["pair_id"])
    assert f"text={out['instruction']}" in traced.stdout
    assert f"evaluation row {out['pair_id']} of heldout" in traced.stdout
    labelled.write_text(labelled.read_text() + json.dumps(rows[1]) + "\n")
    changed = second()
    assert changed.code == 2
    assert f"the content of {labelled} changed" in changed.one_line
