"""A judge by its card: when its judgments end with their verdict."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from ray_app.base.prompts import load_prompt
from ray_app.engine.settings import EngineSettings
from ray_app.errors import InputError
from ray_app.judging.judge import judge_of

THINKING: dict[str, Any] = {"enable_thinking": True}


def folder(path: Path, template: str = "", **card: Any) -> str:
    """A checkpoint with a chat template; with keys, it has a card."""
    (path / "config.json").write_text("{}")
    (path / "chat_template.jinja").write_text(template)
    if card:
        given = {"prompt": load_prompt("judge_pairwise").to_dict(), **card}
        (path / "judge.json").write_text(json.dumps(given))
    return str(path)


@pytest.mark.parametrize(
    ("card", "given", "option", "stops"),
    [
        ({}, {}, None, True),
        ({"stop_after_verdict": True}, {}, None, True),
        ({"stop_after_verdict": False}, {}, None, False),
        ({"stop_after_verdict": True, "chat_template_kwargs": THINKING}, {}, None, False),
        ({"stop_after_verdict": True}, THINKING, None, False),
        ({}, THINKING, None, False),
        ({}, THINKING, True, True),
        ({"stop_after_verdict": True}, {}, False, False),
    ],
)
def test_a_judge_that_reasons_is_not_stopped_unless_told(
    tmp_path: Path, card: dict[str, Any], given: dict[str, Any], option: bool | None, stops: bool
) -> None:
    engine = EngineSettings(model=folder(tmp_path, **card), chat_template_kwargs=given)
    assert judge_of(engine, None, option).stop_after_verdict is stops


@pytest.mark.parametrize(
    ("template", "given", "option", "warned"),
    [
        ("<think>", {}, None, True),
        ("<think>", {}, False, False),
        ("<think>", {"enable_thinking": False}, None, False),
        ("<think>", THINKING, None, False),
        ("<think>", THINKING, True, True),
        ("plain", {}, None, False),
    ],
)
def test_a_template_that_may_think_is_told(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    template: str,
    given: dict[str, Any],
    option: bool | None,
    warned: bool,
) -> None:
    caplog.set_level(logging.WARNING)
    judge_of(EngineSettings(model=folder(tmp_path, template), chat_template_kwargs=given), None, option)
    assert ["may reason in <think>" in message for message in caplog.messages] == [True] * warned


def test_a_card_of_a_newer_format_is_refused_by_name(tmp_path: Path) -> None:
    model = folder(tmp_path, format=99)
    with pytest.raises(InputError, match=r"judge\.json has format 99; this version reads format 1"):
        judge_of(EngineSettings(model=model), None, None)
