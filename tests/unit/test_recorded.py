"""Fingerprints and seeds are those of commit 8287728 (`recorded`): what was committed then can still be continued."""

from __future__ import annotations

import json
from typing import Any

import recorded


def test_fingerprints_of_the_shipped_configs() -> None:
    was: dict[str, Any] = json.loads((recorded.HOME / "fingerprints.json").read_text())
    # Engines and trainer computed in bf16 by default then; today's default, auto, is another setting. So is the wording
    # by which instructions are classified.
    older = [f"--{name}.dtype=bfloat16" for name in ("generator", "judge", "train")]
    older.append("--prompts.classify=classify_names")
    now = recorded.fingerprints(*older)
    first = "llama3.1-70b-3x8.yaml"
    now[first] = recorded.fingerprints(*older, "--first_judge.dtype=bfloat16", only=first)[first]
    assert now == was


def test_seeds() -> None:
    assert recorded.seeds() == json.loads((recorded.HOME / "seeds.json").read_text())
