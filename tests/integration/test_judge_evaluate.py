"""`judge` and `evaluate` as their users run them; the scripted engine stands for the model."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from commands import ENGINE, QUIET, ROOT, command, lines

PAIRS = ROOT / "configs" / "demo" / "validation.jsonl"
FIXTURES = ROOT / "tests" / "fixtures"


def test_judge_then_score_the_verdicts_then_continue(tmp_path: Path) -> None:
    verdicts = tmp_path / "verdicts.jsonl"
    arguments = [*ENGINE, *QUIET, "--input", PAIRS, "--output", verdicts, "--votes", 5]
    first = command("judge", *arguments)
    assert first.returncode == 0, first.stderr[-2000:]
    assert "tok/s" in first.stdout
    assert not re.search(r"^\[.* [IWE] .*\.cc", first.stderr, re.MULTILINE), f"Ray's core speaks up: {first.stderr}"
    assert [v["id"] for v in lines(verdicts)] == [r["id"] for r in lines(PAIRS)], "the input's order"
    shards = {p.name: p.stat().st_mtime_ns for p in Path(f"{verdicts}.parts").glob("shard-*.parquet")}
    text = verdicts.read_text()

    assert command("judge", *arguments, "--explanations").returncode == 0
    explained = lines(verdicts)
    assert all(
        len(v["explanations"][o]) == sum(v["orders"][o]["votes"].values()) for v in explained for o in ("ab", "ba")
    )
    assert command("judge", *arguments).returncode == 0
    again = {p.name: p.stat().st_mtime_ns for p in Path(f"{verdicts}.parts").glob("shard-*.parquet")}
    assert (again, verdicts.read_text()) == (shards, text), "nothing is judged twice"

    refused = command("judge", *arguments[:-1], 7)
    assert refused.returncode == 2
    assert "setting votes was 5, is now 7" in refused.stderr

    scored = command("evaluate", "--verdicts", verdicts, "--benchmark", f"val={PAIRS}", "--output", tmp_path / "given")
    assert scored.returncode == 0, scored.stderr[-2000:]
    own = ["--benchmark", f"val={PAIRS}", "--output", tmp_path / "own", "--compare", tmp_path / "given"]
    judged = command("evaluate", *ENGINE, *QUIET, *own, "--votes", 5)
    assert judged.returncode == 0, judged.stderr[-2000:]
    assert "against the other run" in judged.stdout
    summaries = [json.loads((tmp_path / d / "summary.json").read_text())["val"] for d in ("given", "own")]
    assert summaries[0]["n"] == summaries[1]["n"] == 32
    assert summaries[0]["overall"].keys() == summaries[1]["overall"].keys()
    assert summaries[1]["compared"]["difference"]["value"] == 0, "the same judge, the same seeds"


@pytest.mark.parametrize(
    ("file", "named"),
    [
        ("duplicate_ids_pairwise.jsonl", "twice"),
        ("empty.jsonl", "no rows"),
        ("nowhere.jsonl", "does not exist"),
    ],
)
def test_a_fault_of_the_file_is_one_line(tmp_path: Path, file: str, named: str) -> None:
    ended = command("judge", *ENGINE, *QUIET, "--input", FIXTURES / file, "--output", tmp_path / "v.jsonl")
    assert ended.returncode == 2
    assert named in ended.stderr
    assert len(ended.stderr.strip().splitlines()) == 1


def test_invalid_utf8_is_named(tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_bytes(PAIRS.read_bytes() + b'{"id": "x\xff"}\n')
    ended = command("judge", *ENGINE, *QUIET, "--input", path, "--output", tmp_path / "v.jsonl")
    assert ended.returncode == 2
    assert "line 33" in ended.stderr


def test_a_fault_of_a_row_leaves_its_id_unparsed(tmp_path: Path) -> None:
    output = tmp_path / "v.jsonl"
    rows = lines(FIXTURES / "label_c.jsonl")
    ended = command("judge", *ENGINE, *QUIET, "--input", FIXTURES / "label_c.jsonl", "--output", output)
    assert ended.returncode == 0, ended.stderr[-2000:]
    found = {v["id"]: v for v in lines(output)}
    assert set(found) == {row["id"] for row in rows}
    assert found["c3"]["verdict"] is None
    assert found["c3"]["quarantined"] == "bad_label"


@pytest.mark.long
def test_rows_that_no_context_holds_are_quarantined_and_still_count(tmp_path: Path) -> None:
    """A response of 200,000 characters, a label C and a NaN among good rows; `judge`, then its verdicts scored."""
    rows = lines(PAIRS)[:6]
    rows[2]["response_a"] = "word " * 40_000
    rows[3]["label"] = "C"
    rows[4]["response_b"] = float("nan")
    pairs, output = tmp_path / "pairs.jsonl", tmp_path / "v.jsonl"
    pairs.write_text("".join(json.dumps(row) + "\n" for row in rows))
    limit = ["--engine.max_model_len", 4000]
    ended = command("judge", *ENGINE, *QUIET, *limit, "--input", pairs, "--output", output, "--votes", 3)
    assert ended.returncode == 0, ended.stderr[-2000:]
    found = {verdict["id"]: verdict for verdict in lines(output)}
    assert set(found) == {row["id"] for row in rows}
    lost = {id: verdict["quarantined"] for id, verdict in found.items() if "quarantined" in verdict}
    names = [row["id"] for row in rows]
    assert lost == {names[2]: "prompt_too_long", names[3]: "bad_label", names[4]: "empty_response_b"}
    assert all(found[id]["verdict"] is None for id in lost)

    scored = command("evaluate", "--verdicts", output, "--benchmark", f"set={pairs}", "--output", tmp_path / "scored")
    assert scored.returncode == 0, scored.stderr[-2000:]
    summary = json.loads((tmp_path / "scored" / "summary.json").read_text())["set"]
    assert summary["n"] == summary["n_in"] == summary["overall"]["vote_accuracy"]["n"] == len(rows)
    assert summary["overall"]["unparsed_rate"]["value"] >= 3 / 6
