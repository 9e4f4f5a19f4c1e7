"""Judges that reason in `<think>` before they answer. No text of theirs may be cut at a verdict: they may weigh both.

The rule `stop_after_verdict` holds alike in judging, training and evaluation; it is off where a judge reasons.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ray_app.base.local_copy import local_model
from ray_app.base.verdict import THINK_CLOSE, THINK_OPEN
from ray_app.errors import InputError

# What opens and closes reasoning, by families: most; Mistral; Seed-OSS; Cohere; Kimi; Gemma 4. Harmony (gpt-oss) has no
# such pair (`tokens.marks_of`); where a vocabulary marks otherwise, `engine.vllm: {reasoning_parser: NAME}` tells.
MARKS = (
    (THINK_OPEN, THINK_CLOSE),
    ("[THINK]", "[/THINK]"),
    ("<seed:think>", "</seed:think>"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("◁think▷", "◁/think▷"),
    ("<|channel>", "<channel|>"),
)
SWITCHES = ("enable_thinking", "thinking")  # Qwen, GLM and others; Granite, DeepSeek
EFFORT = "reasoning_effort"


def declared(chat_template_kwargs: Mapping[str, Any]) -> bool | None:
    """Whether the template's arguments turn reasoning on (True) or off (False); None where they say nothing."""
    said = [bool(chat_template_kwargs[name]) for name in SWITCHES if name in chat_template_kwargs]
    if chat_template_kwargs.get(EFFORT) is not None:
        said.append(str(chat_template_kwargs[EFFORT]) != "none")
    return any(said) if said else None


def may_reason(template: str, chat_template_kwargs: Mapping[str, Any]) -> bool:
    """Whether a model with this chat template may reason although nothing was declared."""
    return declared(chat_template_kwargs) is None and any(opens in template for opens, _ in MARKS)


def opened_by(prompt: str) -> str:
    """What a templated prompt has already written of the answer: some templates open `<think>` themselves, and then the
    model's own text shows only the end of its reasoning, or, cut off, no sign of it at all.
    """
    return f"{THINK_OPEN}\n" if prompt.rstrip().endswith(tuple(opens for opens, _ in MARKS)) else ""


def template_of(model: str) -> str:
    """The chat template in a model folder, on a disk or a store; empty for a hub id or where there is none."""
    try:
        folder = Path(local_model(model, weights=False)).expanduser()
        if (folder / "chat_template.jinja").is_file():
            return (folder / "chat_template.jinja").read_text(encoding="utf-8")
        return str(json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8")).get("chat_template", ""))
    except (InputError, OSError, ValueError, AttributeError):  # the engine says what is wrong with a tokenizer
        return ""
