"""`from ray_app import Judge`: the README's example on the real model; what the API answers, with scripted engines."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from commands import ENGINE, QUIET, ROOT, command, lines
from loop_runs import environment

import ray_app
from ray_app.errors import InputError

SCRIPT = {"gold_marker": "GOOD", "p": [1.0]}
PAIR = {"instruction": "q", "response_a": "GOOD one", "response_b": "another"}


@pytest.fixture(scope="module")
def judge() -> Iterator[ray_app.Judge]:
    engine = {"kind": "scripted", "script": SCRIPT}
    with ray_app.Judge.load("scripted", engine=engine, ray={"object_store_gib": 0.1}) as made:
        yield made


def test_verdicts(judge: ray_app.Judge) -> None:
    turned = {**PAIR, "response_a": PAIR["response_b"], "response_b": PAIR["response_a"], "id": "t"}
    found = judge.judge([PAIR, turned, {**PAIR, "response_a": " ", "id": 3}], votes=3, explanations=True)
    assert [verdict.winner for verdict in found] == ["A", "B", None]
    assert (found[1].id, found[2].id, found[2].quarantined) == ("t", "3", "empty_response_a")
    assert found[0].record["orders"]["ab"]["votes"]["A"] >= 2
    assert all("[[" in text for text in found[0].explanations["ab"])
    frame = found.to_pandas()
    assert list(frame["winner"])[:2] == ["A", "B"]
    assert frame["orders.ab.votes.A"][0] >= 2
    assert judge.judge([]) == []


def test_the_same_as_the_command(judge: ray_app.Judge, tmp_path: Path) -> None:
    """Same program, seeds and parser: also where a judge is right by chance only."""
    engine = {"kind": "scripted", "script": {"gold_marker": "is", "p": [0.9, 0.5, 0.1], "unparsed": 0.2}}
    source, target = ROOT / "configs" / "demo" / "validation.jsonl", tmp_path / "v.jsonl"
    options = ["--model", "scripted", "--engine.kind", "scripted", "--engine.script", json.dumps(engine["script"])]
    done = command("judge", *options, *QUIET, "--input", source, "--output", target, "--votes", 5)
    assert done.returncode == 0, done.stderr[-2000:]
    other = ray_app.Judge.load("scripted", engine=engine)
    assert [verdict.record for verdict in other.judge(lines(source), votes=5)] == lines(target)
    other.close()


def test_ranks(judge: ray_app.Judge) -> None:
    found = judge.rank("q", ["bad", "worse", "GOOD"], votes=3)
    assert (found.best, found.scores[2]) == (2, 1.0)
    with pytest.raises(InputError, match="too_few_responses"):
        judge.rank("q", ["one"])


def test_what_cannot_be_judged_is_one_line(judge: ray_app.Judge) -> None:
    with pytest.raises(InputError, match="pair 1 has no response_b"):
        judge.judge([PAIR, {"instruction": "q", "response_a": "x"}])
    with pytest.raises(InputError, match="id 'a' occurs twice"):
        judge.judge([{**PAIR, "id": "a"}] * 2)
    with pytest.raises(InputError, match=r"SamplingSettings\.top_p"):
        judge.judge([PAIR], generation={"top_p": 7})
    with pytest.raises(InputError, match=r"EngineSettings\.replica: Extra inputs"):
        ray_app.Judge.load("m", engine={"replica": 2})
    with pytest.raises(InputError, match="nowhere"):
        ray_app.Judge.load("./nowhere")


def test_rank_files_continue_and_give_preferences(tmp_path: Path) -> None:
    source, target, prefs = tmp_path / "in.jsonl", tmp_path / "ranks.jsonl", tmp_path / "prefs.jsonl"
    rows: list[dict[str, Any]] = [
        {"id": "a", "instruction": "Which?", "responses": ["no", "GOOD", "neither"]},
        {"id": "b", "instruction": "Which?", "responses": ["one"]},
        {"id": "c", "instruction": [{"role": "user", "content": "And?"}], "responses": ["GOOD", "no"]},
    ]
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = [*ENGINE[:4], "--engine.script", json.dumps(SCRIPT), *QUIET, "--rank", "--input", source]
    done = command("judge", *options, "--output", target, "--preferences", prefs)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "3 rankings" in done.stdout
    found = lines(target)
    assert [(row["id"], row["best"]) for row in found] == [("a", 1), ("b", None), ("c", 0)]
    assert found[1]["quarantined"] == "too_few_responses"
    kept = lines(prefs)
    assert [row["id"] for row in kept] == ["a", "c"]
    assert kept[0]["chosen"] == [{"role": "assistant", "content": "GOOD"}]
    assert kept[1]["prompt"] == [{"role": "user", "content": "And?"}]

    import datasets
    from trl.data_utils import is_conversational

    loaded = datasets.load_dataset("json", data_files=str(prefs), split="train", cache_dir=str(tmp_path / "cache"))
    assert is_conversational(loaded[0])
    shards = {path: path.stat().st_mtime_ns for path in Path(f"{target}.parts").glob("shard-*")}
    assert command("judge", *options, "--output", target).returncode == 0
    assert {path: path.stat().st_mtime_ns for path in shards} == shards, "nothing is judged twice"
    for path in (source, target):
        refused = command("judge", *options, "--output", target, "--preferences", path)
        assert refused.returncode == 2
        assert f"--preferences {path} is the" in refused.stderr
    refused = command("judge", *ENGINE, "--input", source, "--output", target, "--preferences", prefs)
    assert refused.returncode == 2
    assert "--preferences needs --rank" in refused.stderr


def test_the_readmes_example_on_the_real_model(model: str) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert str(Path(model).relative_to(ROOT)) in example
    done = subprocess.run(
        [sys.executable, "-c", example], cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stderr[-3000:]
    told = done.stdout.splitlines()
    assert told[0] in ("A", "B", "None")
    assert sorted(int(digit) for digit in re.findall(r"\d", told[-1])) == [0, 1, 2]
