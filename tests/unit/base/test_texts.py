"""The contract of texts from outside: strings, messages, parts; what is none, and why."""

from __future__ import annotations

from typing import Any

import pytest

from ray_app.base.texts import as_text, conversation_fault, text_fault


def said(content: Any, role: str = "user", **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


@pytest.mark.parametrize(
    ("value", "text", "conversation"),
    [
        ("Name a bird.", None, None),
        (" \n", "empty", "empty"),
        (None, "empty", "empty"),
        ([], "empty", "empty"),
        (3, "not_a_text", "not_a_text"),
        ([said("q")], None, None),
        ([said(None)], "not_a_text", "not_a_text"),
        ([said("  ")], "empty", "empty"),
        ([said([{"type": "text", "text": "Name a fish."}])], None, None),
        ([said([{"type": "image_url", "image_url": "x"}])], "not_a_text", "not_a_text"),
        ([said([])], "not_a_text", "not_a_text"),
        ([said("q"), said(None, "assistant", tool_calls=[{}]), said("7", "tool")], "not_a_text", "not_a_text"),
        ([said("q"), said("Let me look.", "assistant", tool_calls=[{}]), said("r")], "not_a_text", "not_a_text"),
        ([said("q"), said("It is 7.", "assistant", tool_calls=[]), said("r")], None, None),
        ([said("q"), said("7", "tool")], None, "unknown_role"),
        ([said("q"), said("An oak.", "assistant")], None, "ends_with_assistant"),
        ([said("You are kind.", "system")], None, "ends_with_system"),
        ([said("q"), said("a", "assistant"), said(" ")], None, "empty"),
        ([said("s", "system"), said("q"), said("a", "assistant"), said("r")], None, None),
        (["q"], "not_a_text", "not_a_text"),
        ([{"content": "q"}], "not_a_text", "not_a_text"),
    ],
)
def test_faults(value: Any, text: str | None, conversation: str | None) -> None:
    assert text_fault(value) == text
    assert conversation_fault(value) == conversation


def test_parts_become_one_text_and_other_keys_are_left_out() -> None:
    parts = [{"type": "text", "text": "Name "}, {"type": "text", "text": "a fish."}]
    assert as_text([said(parts, name="x")]) == [{"role": "user", "content": "Name a fish."}]
    assert as_text("plain") == "plain"
