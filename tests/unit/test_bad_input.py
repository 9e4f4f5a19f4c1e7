"""Bad input to the loop: one line that names the thing, exit code 2, no Ray and no model started."""

from __future__ import annotations

import contextlib
import json
import socket
from pathlib import Path
from typing import Any

import pytest
import ray
import yaml
from loop_runs import base_settings, merged

from ray_app.command.load_settings import run_command
from ray_app.iterate import main
from ray_app.loop.config import IterateSettings

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures"


@pytest.fixture
def refused(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs the command in this process and returns its one line."""

    def no_ray(*_: Any, **__: Any) -> None:
        raise AssertionError("Ray was started before the input was checked")

    monkeypatch.setattr(ray, "init", no_ray)

    def run(*options: str, **settings: Any) -> str:
        config = tmp_path / "config.yaml"
        config.write_text(yaml.safe_dump(merged(base_settings(tmp_path), settings)))
        assert run_command(IterateSettings, main, ["--config", str(config), *options]) == 2
        told = capsys.readouterr()
        assert told.err.startswith("error: ")
        assert told.err.count("\n") == 1
        assert told.out == ""
        return told.err

    return run


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder of a `ray job submit --working-dir .`."""
    folder = tmp_path / "session" / "runtime_resources" / "working_dir_files" / "_ray_pkg_0"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def refused_later(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """Faults inside the input file show when the first stage reads it; that stage needs no Ray, so none is started."""
    monkeypatch.setattr("ray_app.loop.run.connected", lambda _: contextlib.nullcontext())

    def run(source: Path) -> str:
        config = tmp_path / "config.yaml"
        more = {"instructions": {"source": str(source)}, "ray": {"may_grow": True}}
        config.write_text(yaml.safe_dump(merged(base_settings(tmp_path), more)))
        assert run_command(IterateSettings, main, ["--config", str(config)]) == 2
        told = capsys.readouterr().err.splitlines()
        lines = [line for line in told if line.startswith("error: ")]
        assert len(lines) == 1
        assert not any("Traceback" in line for line in told)
        assert not (tmp_path / "run" / "instructions" / "stage.json").exists()
        assert not (tmp_path / "run" / "lease.json").exists()
        return lines[0]

    return run


def test_a_missing_input_file(refused: Any, tmp_path: Path) -> None:
    missing = str(tmp_path / "nowhere.jsonl")
    assert missing in refused("--instructions.source", missing)
    assert missing in refused(evaluation={"validation": f"validation={missing}"})
    assert missing in refused("--config", missing)


def test_an_unknown_key_names_the_nearest(refused: Any) -> None:
    line = refused(judging={"sample": 4})
    assert "judging.sample" in line
    assert "did you mean judging.samples" in line
    assert "did you mean --train.lr" in refused("--train.lrr", "1e-6")


@pytest.mark.parametrize("role", ["generator", "judge", "first_judge"])
def test_a_model_path_that_does_not_exist(refused: Any, tmp_path: Path, role: str) -> None:
    missing = str(tmp_path / "no-model")
    line = refused(**{role: {"kind": "vllm", "model": missing, "cpus": 1, "script": {}}})
    assert f"{role}.model" in line
    assert missing in line


@pytest.mark.parametrize(
    ("tests", "told"),
    [
        (["set=one.jsonl", "set=two.jsonl"], "set=one.jsonl and set=two.jsonl are both called set"),
        (["set=one.jsonl", "data/set.jsonl"], "set=one.jsonl and data/set.jsonl are both called set"),
        (["validation=one.jsonl"], "validation=one.jsonl is called validation, a set of the loop's own"),
        (["heldout=one.jsonl"], "heldout=one.jsonl is called heldout, a set of the loop's own"),
    ],
)
def test_evaluation_sets_of_one_name(refused: Any, tmp_path: Path, tests: list[str], told: str) -> None:
    line = refused(evaluation={"test": tests})
    assert line.startswith(f"error: evaluation.test: {told}; write NAME=PATH")
    assert not (tmp_path / "run" / "run.json").exists()


@pytest.mark.parametrize("name", ["a:b", "..", "."])
def test_a_name_that_is_no_folder(refused: Any, name: str) -> None:
    assert f"cannot be called {name!r}; write NAME=PATH" in refused(evaluation={"test": [f"{name}=one.jsonl"]})


def test_an_unknown_benchmark(refused: Any) -> None:
    line = refused(evaluation={"test": ["rewardbnch"]})
    assert "'rewardbnch' is neither a known name nor a file; did you mean rewardbench?" in line


def test_a_folder_without_a_model(refused: Any, tmp_path: Path) -> None:
    assert "config.json" in refused(judge={"kind": "vllm", "model": str(tmp_path), "script": {}})


@pytest.mark.parametrize("kind", ["openai", "scripted"])
def test_a_judge_without_weights_is_refused_where_it_is_to_be_trained(refused: Any, kind: str) -> None:
    judge = {"kind": kind, "model": "gpt", "endpoint": {"base_url": "http://localhost/v1"}}
    line = refused(judge=judge, iterations=1)
    assert f"judge.kind: {kind}" in line
    assert "iterations is 1" in line


def test_a_run_folder_on_a_store_that_nobody_knows_is_refused(refused: Any) -> None:
    """A bucket that is not there is asked of a store itself: tests/orchestration/test_object_store.py."""
    assert "runs: abc://bucket cannot be used: Protocol not known" in refused(runs="abc://bucket")


def test_a_relative_run_folder_in_rays_package_is_refused(refused: Any, package: Path) -> None:
    assert "runs: runs is a relative path" in refused(runs="runs")
    assert not list(package.iterdir())


def test_a_folder_that_cannot_be_made_is_named(refused: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    line = refused(runs=str(tmp_path / "file"))
    assert f"the run folder {tmp_path}/file/run cannot be written to: Not a directory" in line


def test_a_name_that_is_no_folder_and_no_hub_model(refused: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    line = refused(generator={"kind": "vllm", "model": "models/llama", "script": {}})
    assert "generator.model: models/llama is no folder here, and not to be had from the hub: " in line


def test_a_benchmark_is_read_before_any_work_is_done(refused: Any) -> None:
    """Else a misspelt name, or a broken file, would be found out when the pairs are made."""
    off = {"decontamination": {"enabled": False}}
    assert "'nosuchset' is neither" in refused(evaluation={"validation": "nosuchset"}, instructions=off)
    gold = f"gold={FIXTURES / 'broken_line7.jsonl'}"
    assert "has no column 'response_a'" in refused(evaluation={"test": [gold]}, instructions=off)


def test_an_address_where_nothing_listens_is_told_at_once(refused: Any) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    assert f"no Ray cluster answers at {address}: " in refused("--ray.address", address)


def test_a_value_of_the_wrong_kind(refused: Any) -> None:
    assert "judging.samples" in refused("--judging.samples", "0")
    assert "iterations" in refused("--iterations", "many")


def test_a_broken_line_of_the_input_is_named(refused_later: Any) -> None:
    line = refused_later(FIXTURES / "broken_line7.jsonl")
    assert "broken_line7.jsonl" in line
    assert "line 7" in line


def test_a_missing_column_is_named(refused_later: Any, tmp_path: Path) -> None:
    file = tmp_path / "prompts.jsonl"
    file.write_text(json.dumps({"id": "1", "prompt": "a question"}) + "\n")
    line = refused_later(file)
    assert "instruction" in line
    assert str(file) in line


def test_nothing_left_is_told_with_the_reasons(refused_later: Any, tmp_path: Path) -> None:
    file = tmp_path / "prompts.jsonl"
    file.write_text(json.dumps({"id": "1", "instruction": "  "}) + "\n")
    assert "empty_instruction" in refused_later(file)
