"""Folders that commit 8287728 left (`recorded`): they are complete as they are, they go on, and nothing is redone."""

from __future__ import annotations

import json
import shutil
import tarfile
from pathlib import Path
from typing import Any

import pytest
import recorded
from commands import command
from loop_runs import Loop, scripted


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folders, unpacked."""
    where = tmp_path_factory.mktemp("recorded")
    with tarfile.open(recorded.FOLDERS) as packed:
        packed.extractall(where, filter="data")
    return where


def of_then(name: str) -> dict[str, Any]:
    """The settings of a recorded run, with the wording by which it classified."""
    run = recorded.RUNS[name]
    return {**run, "prompts": {**run["prompts"], "classify": "classify_names"}}


def copied(folders: Path, name: str, into: Path, **more: Any) -> Loop:
    """A loop on a copy of a recorded run folder."""
    shutil.copytree(folders / "runs" / name, into / name)
    return Loop(into, {**of_then(name), **more}, base={})


@pytest.mark.parametrize("name", recorded.RUNS)
def test_a_finished_run_is_finished(folders: Path, tmp_path: Path, name: str) -> None:
    run = copied(folders, name, tmp_path)
    before = run.files("**/*")
    ended = run.succeeds("--runs", str(tmp_path))
    stages = len(list(run.run.rglob("stage.json")))
    assert f"{stages} of {stages} stages are done" in ended.errors
    assert "started a local Ray" not in ended.errors
    derived = {"metrics.jsonl", "README.md", "run.json"}
    after = run.files("**/*")
    assert [path for path in before if after.get(path) != before[path] and Path(path).name not in derived] == []


@pytest.mark.long
@pytest.mark.parametrize("name", ["pairwise", "refresh"])
def test_one_more_iteration(folders: Path, tmp_path: Path, name: str) -> None:
    run = copied(folders, name, tmp_path)
    before = {**run.files(), **run.files("**/stage.json")}
    run.succeeds("--runs", str(tmp_path), "--iterations", "2")
    after = {**run.files(), **run.files("**/stage.json")}
    assert before.items() <= after.items()
    assert len(run.rows("iter_02/judgments")) > 0
    assert (run.run / "iter_02/checkpoint/judge.json").is_file()
    assert judge_json(run.run, 2) == {**judge_json(folders / "runs" / name, 1), "iteration": 2}


KILLED_IN = {
    "judgments": ("iter_01/judgments/*.parquet", ("judgments", "train_set", "training", "evaluation", "checkpoint")),
    "training": ("iter_01/checkpoint/model.safetensors", ("training", "evaluation")),
}


@pytest.mark.parametrize("stage", ["judgments", pytest.param("training", marks=pytest.mark.long)])
def test_an_interrupted_run_goes_on(folders: Path, tmp_path: Path, stage: str) -> None:
    """As a kill at the end of a stage leaves it: what the stage has written is used, and nothing lies behind it."""
    run = copied(folders, "pairwise", tmp_path)
    kept, (uncommitted, *behind) = KILLED_IN[stage]
    iteration = run.run / "iter_01"
    begun = iteration / uncommitted / "stage.json"
    (begun.parent / "started.json").write_text(json.dumps(json.loads(begun.read_text())["fingerprint"]))
    begun.unlink()
    for name in behind:
        shutil.rmtree(iteration / name)
    before = run.files(kept)
    run.succeeds("--runs", str(tmp_path))
    assert before
    assert run.files(kept) == before
    assert (iteration / "evaluation/rewardbench2/stage.json").is_file()


def judge_json(run: Path, iteration: int) -> dict[str, Any]:
    """judge.json less the training set, which another iteration has another of."""
    card: dict[str, Any] = json.loads((run / f"iter_{iteration:02d}/checkpoint/judge.json").read_text())
    return {name: value for name, value in card.items() if name != "train_set"}


LATER = ("judge_greedy", "judge_pointwise")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.long] * (name in LATER)) for name in recorded.JUDGED]
)
def test_the_same_verdicts_again(folders: Path, tmp_path: Path, name: str) -> None:
    """Judged anew, and asked for once more on the folder of then: both give the files of then."""
    kind, *options = recorded.JUDGED[name]
    was = folders / "judged" / name
    for place in (tmp_path / "anew", tmp_path / "again"):
        if place.name == "again":
            shutil.copytree(was, place)
        place.mkdir(exist_ok=True)
        ended = command(kind, *options, "--output", place if kind == "evaluate" else place / "verdicts.jsonl")
        assert ended.returncode == 0, ended.stderr[-3000:]
        for file in was.rglob("*.json*"):
            if file.name not in ("verdicts.jsonl", "summary.json", "leaderboard.json"):
                continue
            found, wanted = (place / file.relative_to(was)).read_text(), file.read_text()
            if file.name == "verdicts.jsonl":
                assert found == wanted, file
            else:
                assert not changed(json.loads(found), json.loads(wanted)), file


def changed(now: Any, then: Any, place: str = "") -> list[str]:
    """The figures of then that are others now, by their places. Intervals were too narrow then (`metrics.proportion`),
    and there may be more figures now.
    """
    if isinstance(then, dict):
        names = then.keys() - {"low", "high"}
        return [fault for name in sorted(names) for fault in changed(now[name], then[name], f"{place}/{name}")]
    if isinstance(then, list):
        pairs = zip(now, then, strict=True)
        return [fault for i, (one, two) in enumerate(pairs) for fault in changed(one, two, f"{place}/{i}")]
    return [] if now == then else [f"{place}: {then} is {now}"]


def test_answers_over_http() -> None:
    """The same answers; what `/health` tells of progress besides is newer than the record."""
    then, now = json.loads((recorded.HOME / "http.json").read_text()), recorded.http_answers()
    for was, one in zip(then, now, strict=True):
        if one["path"] == "/health":
            assert one["answer"].keys() - was["answer"].keys() == {"pairs_in_flight", "tokens", "quiet_s"}
            one["answer"] = {name: one["answer"][name] for name in was["answer"]}
    assert now == then


def test_a_run_of_before_dtype_auto_goes_on_in_its_own_format(folders: Path, tmp_path: Path) -> None:
    """Its config named no format, which meant bf16 then; here it named fp32, and now names none."""
    settings = {**of_then("one_call"), "generator": nameless(), "judge": nameless(recorded.TINY)}
    shutil.copytree(folders / "runs" / "one_call", tmp_path / "one_call")
    ended = Loop(tmp_path, settings, base={}).succeeds("--runs", str(tmp_path))
    assert "was begun before there was auto, and goes on in float32" in ended.errors


def nameless(model: str = "scripted") -> dict[str, Any]:
    return {**scripted(model, **recorded.SCRIPT), "max_num_seqs": 8}
