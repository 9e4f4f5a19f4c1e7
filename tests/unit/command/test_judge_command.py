"""`judge` in this process: faults of its files are one line, before Ray or a model starts."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import ray

from ray_app.command.load_settings import run_command
from ray_app.command.settings import EvaluateSettings, JudgeSettings
from ray_app.evaluate import main as evaluate_main
from ray_app.judge import main

SCRIPTED = ["--model", "scripted", "--engine.kind", "scripted"]
FIXTURES = Path(__file__).resolve().parents[2] / "fixtures"
PAIR = {"id": "a", "instruction": "q", "response_a": "x", "response_b": "y", "label": "A"}
Refused = Callable[..., str]


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Refused:
    """Runs a command in this process and returns its one line."""

    def no_ray(*_: Any, **__: Any) -> None:
        raise AssertionError("judging was started")

    monkeypatch.setattr(ray, "init", no_ray)

    def run(settings: Any, command: Any, *options: object) -> str:
        assert run_command(settings, command, [*SCRIPTED, *map(str, options)]) == 2
        told = capsys.readouterr().err
        assert told.startswith("error: ")
        assert told.count("\n") == 1
        return told

    return run


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    path = tmp_path / "pairs.jsonl"
    path.write_text(json.dumps(PAIR) + "\n")
    return path


def test_the_verdicts_never_overwrite_the_pairs(refused: Refused, pairs: Path) -> None:
    told = refused(JudgeSettings, main, "--input", pairs, "--output", pairs)
    assert f"--output {pairs} is the input" in told
    assert json.loads(pairs.read_text()) == PAIR
    assert [path.name for path in pairs.parent.iterdir()] == ["pairs.jsonl"]


@pytest.mark.parametrize(
    ("output", "named"),
    [
        ("folder", "is a folder"),
        ("pairs.jsonl/v.jsonl", "cannot be written"),
        ("nosuch://x/v.jsonl", "cannot be written"),
    ],
)
def test_an_output_that_cannot_be_written_is_named_before_judging(
    refused: Refused, pairs: Path, output: str, named: str
) -> None:
    (pairs.parent / "folder").mkdir()
    target = output if "://" in output else pairs.parent / output
    assert named in refused(JudgeSettings, main, "--input", pairs, "--output", target)


@pytest.mark.parametrize("output", ["pairs.jsonl", "nosuch://x"])
def test_an_output_folder_that_cannot_be_made(refused: Refused, pairs: Path, output: str) -> None:
    target = output if "://" in output else pairs.parent / output
    told = refused(EvaluateSettings, evaluate_main, "--benchmark", f"set={pairs}", "--output", target)
    assert f"{target} cannot be written" in told


@pytest.mark.parametrize(
    ("content", "needle"),
    [
        (b"", "holds no rows"),
        (json.dumps(PAIR).encode() * 2, "is not JSON"),
        ((json.dumps(PAIR) + "\n").encode() * 2, "line 2: id 'a' occurs twice"),
        (b'{"id": "a\xff"}', "line 1 is not UTF-8"),
        (json.dumps({**PAIR, "response_b": " "}).encode(), "holds no row to judge: 1 empty_response_b"),
        (json.dumps({**PAIR, "label": "C"}).encode(), "holds no row to judge: 1 bad_label"),
        (b'{"id": ' + b"9" * 5000 + b"}", "a number has more than 4300 digits"),
    ],
)
def test_a_fault_of_the_pairs(refused: Refused, pairs: Path, content: bytes, needle: str) -> None:
    pairs.write_bytes(content)
    told = refused(JudgeSettings, main, "--input", pairs, "--output", pairs.parent / "v.jsonl")
    assert needle in told
    assert "pairs.jsonl" in told


def test_parquet_of_wrong_types(refused: Refused, tmp_path: Path) -> None:
    told = refused(JudgeSettings, main, "--input", FIXTURES / "wrong_types.parquet", "--output", tmp_path / "v.jsonl")
    assert "wrong_types.parquet column 'response_a' holds list<" in told


def test_a_judge_is_read_and_warned_of_once(
    pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A command that asks for its judge in several places reads its card and prompts, and warns, once."""
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    (model / "chat_template.jinja").write_text("{% if enable_thinking %}<think>{% endif %}")

    def no_ray(*_: Any, **__: Any) -> None:
        raise RuntimeError("far enough")

    monkeypatch.setattr(ray, "init", no_ray)
    options = ["--benchmark", f"gold={pairs}", "--output", str(tmp_path / "out")]
    assert run_command(EvaluateSettings, evaluate_main, ["--model", str(model), *options]) == 1
    assert sum("may reason in <think>" in message for message in caplog.messages) == 1
