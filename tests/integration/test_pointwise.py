"""Single responses and best-of rows: `evaluate`, `judge`, and the loop in pointwise mode."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from commands import ENGINE, QUIET, command, lines
from loop_runs import DEMO, ROOT, Loop, scripted

PAIRS = DEMO / "validation.jsonl"
REWARDBENCH2 = ROOT / "tests" / "fixtures" / "benchmarks" / "rewardbench2.jsonl"


def summary(folder: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / name / "summary.json").read_text())
    return found


def test_scores_become_pairwise_accuracy_and_verdicts_score_the_same(tmp_path: Path) -> None:
    pointwise = [*ENGINE, *QUIET, "--mode", "pointwise", "--votes", 4]
    verdicts = tmp_path / "v.jsonl"
    judged = command("judge", *pointwise, "--input", PAIRS, "--output", verdicts, "--explanations")
    assert judged.returncode == 0, judged.stderr[-2000:]
    for verdict in lines(verdicts):
        a, b = verdict["scores"]["a"], verdict["scores"]["b"]
        assert verdict["verdict"] == ("A" if a > b else "B" if b > a else None)
        assert {side: len(texts) for side, texts in verdict["explanations"].items()} == {"a": 4, "b": 4}
    own = command("evaluate", *pointwise, "--benchmark", f"val={PAIRS}", "--output", tmp_path / "own")
    assert own.returncode == 0, own.stderr[-2000:]
    given = command("evaluate", "--verdicts", verdicts, "--benchmark", f"val={PAIRS}", "--output", tmp_path / "given")
    assert given.returncode == 0, given.stderr[-2000:]
    found = summary(tmp_path / "own", "val")
    assert found["protocol"] == "pointwise"
    assert found["overall"]["accuracy"] == summary(tmp_path / "given", "val")["overall"]["accuracy"]
    refused = command("evaluate", *pointwise[:-2], "--benchmark", f"val={PAIRS}", "--output", tmp_path / "own")
    assert refused.returncode == 2
    assert "setting votes was 4, is now 1" in refused.stderr


@pytest.mark.parametrize("mode", [pytest.param("pairwise", marks=pytest.mark.long), "pointwise"])
def test_best_of_four_is_judged_and_its_verdicts_score_the_same(tmp_path: Path, mode: str) -> None:
    script = json.dumps({"gold_marker": "Paris is in France", "p": [1.0]})
    engine = ["--model", "scripted", "--engine.kind", "scripted", "--engine.script", script, "--mode", mode]
    name = f"rewardbench2={REWARDBENCH2}"
    judged = command("evaluate", *engine, *QUIET, "--benchmark", name, "--output", tmp_path / "own")
    assert judged.returncode == 0, judged.stderr[-2000:]
    found = summary(tmp_path / "own", "rewardbench2")
    assert found["subsets"]["Factuality"]["value"] == 1.0, "its one correct response is the marked one"
    verdicts = tmp_path / "own" / "rewardbench2" / "verdicts.jsonl"
    given = command("evaluate", "--verdicts", verdicts, "--benchmark", name, "--output", tmp_path / "given")
    assert given.returncode == 0, given.stderr[-2000:]
    assert found.pop("cost")["verdicts"] > 0, "of a given file nobody knows what it took"
    assert summary(tmp_path / "given", "rewardbench2") == found


@pytest.mark.long
def test_the_loop_keeps_what_scores_the_chosen_response_higher(loop: Callable[..., Loop], shallow: str) -> None:
    judge = scripted(shallow, p=[0.9, 0.5, 0.0], unparsed=0.1)
    run = loop(
        iterations=1,
        limit=12,
        judge=judge,
        judging={"mode": "pointwise", "samples": 4},
        train={"max_steps": 1},
    )
    run.succeeds()
    drawn: dict[str, dict[int, dict[str, Any]]] = defaultdict(lambda: defaultdict(dict))
    for row in run.rows("iter_01/judgments"):
        drawn[row["pair_id"]][row["sample"]][row["side"]] = row
    wins = {}
    for identity, samples in drawn.items():
        scores = [(samples[j]["chosen"]["score"], samples[j]["rejected"]["score"]) for j in sorted(samples)]
        won = [a is not None and b is not None and a > b for a, b in scores]
        assert not any(won[:-1]), "nothing is drawn after the first win"
        assert won[-1] or len(won) == 4
        if won[-1]:
            wins[identity] = len(won) - 1
    rows = run.rows("iter_01/train_set")
    assert {(r["pair_id"], r["order"], r["sample"]) for r in rows} == {
        (identity, side, j) for identity, j in wins.items() for side in ("chosen", "rejected")
    }
    for row in rows:
        text = drawn[row["pair_id"]][row["sample"]][row["order"]]["text"]
        assert row["completion"] == [{"role": "assistant", "content": text}]
    card = json.loads((run.run / "iter_01/checkpoint/judge.json").read_text())
    assert card["mode"] == "pointwise"
    line = summary(run.run / "iter_01/evaluation", "validation")
    assert line["n"] == 8
    refused = run("--train.recipe", "dpo")
    assert refused.code == 2
    assert "train.recipe dpo needs judging.mode pairwise" in refused.one_line


@pytest.mark.long
def test_the_real_model_scores_single_responses(tmp_path: Path, model: str) -> None:
    engine = ["--model", model, "--engine.device", "cpu", "--engine.cpu_threads", 1, "--engine.max_model_len", 1024]
    options = ["--mode", "pointwise", "--generation", '{"max_tokens": 16, "temperature": 0}', "--limit", 4]
    ended = command("evaluate", *engine, *QUIET, *options, "--benchmark", f"val={PAIRS}", "--output", tmp_path)
    assert ended.returncode == 0, ended.stderr[-2000:]
    assert summary(tmp_path, "val")["n"] == 4
    assert [set(v["scores"]) for v in lines(tmp_path / "val" / "verdicts.jsonl")] == [{"a", "b"}] * 4
