"""What makes a judge a reasoning model, and where its judgments end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ray_app.base.reasoning import declared, may_reason, opened_by, template_of


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, None),
        ({"tools": []}, None),
        ({"enable_thinking": True}, True),
        ({"enable_thinking": False}, False),
        ({"thinking": True}, True),
        ({"reasoning_effort": "low"}, True),
        ({"reasoning_effort": "none"}, False),
        ({"reasoning_effort": None}, None),
        ({"enable_thinking": False, "reasoning_effort": "high"}, True),
    ],
)
def test_what_the_template_arguments_say(given: dict[str, Any], said: bool | None) -> None:
    assert declared(given) is said
    assert may_reason("… <think> …", given) is (said is None)
    assert not may_reason("no such word", given)


@pytest.mark.parametrize(
    ("prompt", "opened"),
    [
        ("<|assistant|>\n", ""),
        ("<|assistant|><think>\n", "<think>\n"),
        ("<|assistant|><think>", "<think>\n"),
        ("<|assistant|><think>\n\n</think>\n\n", ""),
        ("what is <think>?<|assistant|>", ""),
    ],
)
def test_what_a_prompt_has_opened(prompt: str, opened: str) -> None:
    assert opened_by(prompt) == opened


def test_the_template_of_a_folder(tmp_path: Path) -> None:
    assert template_of("some/hub-id") == template_of(str(tmp_path)) == ""
    config = tmp_path / "tokenizer_config.json"
    config.write_text("{ broken")
    assert template_of(str(tmp_path)) == ""
    config.write_text(json.dumps({"chat_template": "old <think>"}))
    assert template_of(str(tmp_path)) == "old <think>"
    (tmp_path / "chat_template.jinja").write_text("new")
    assert template_of(str(tmp_path)) == "new", "transformers prefers it too"
