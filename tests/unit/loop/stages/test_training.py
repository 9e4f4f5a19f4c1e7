"""What the training stage's fingerprint covers: how a checkpoint is selected, where one is, and nothing of it else."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ray_app.loop.config import IterateSettings
from ray_app.loop.stages import training
from ray_app.loop.stages.inputs import Inputs
from ray_app.run.fingerprint import fingerprint

Settings = Callable[..., IterateSettings]
SELECTING = {"checkpoint_every": 5}


def digest(settings: IterateSettings) -> str:
    inputs = Inputs(settings)
    covered = training.settings_of(settings, inputs), training.inputs_of(settings, inputs)
    return fingerprint(training.STAGE, *covered, []).digest


@pytest.fixture
def validation(tmp_path: Path) -> Path:
    file = tmp_path / "validation.jsonl"
    row = {"id": "1", "instruction": "q", "response_a": "a", "response_b": "b", "label": "A"}
    file.write_text(json.dumps(row) + "\n")
    return file


CHANGES: list[dict[str, Any]] = [
    {"train": {"selection": {"patience": 2}}},
    {"train": {"selection": {"when": "between"}}},
    {"evaluation": {"limit": 3}},
    {"evaluation": {"votes": 3}},
    {"evaluation": {"generation": {"max_tokens": 7}}},
]


@pytest.mark.parametrize("change", CHANGES)
def test_what_decides_the_selection_is_covered_where_one_is_made(
    settings: Settings, validation: Path, change: dict[str, Any]
) -> None:
    for every, differs in ((5, True), (0, False)):
        base: dict[str, Any] = {"train": {"checkpoint_every": every}, "evaluation": {"validation": f"v={validation}"}}
        changed = {name: {**base[name], **change.get(name, {})} for name in base}
        assert (digest(settings(**base)) != digest(settings(**changed))) is differs


def test_so_is_the_content_of_the_validation_set(settings: Settings, validation: Path) -> None:
    selecting = settings(train=SELECTING, evaluation={"validation": f"v={validation}"})
    plain = settings(train={"checkpoint_every": 0}, evaluation={"validation": f"v={validation}"})
    before = digest(selecting), digest(plain)
    validation.write_text(validation.read_text().replace('"q"', '"another"'))
    assert digest(selecting) != before[0]
    assert digest(plain) == before[1]


def test_no_selection_without_a_validation_set_checkpoints_or_candidates(settings: Settings, validation: Path) -> None:
    given = {"validation": f"v={validation}"}
    assert training.selects(settings(train=SELECTING, evaluation=given))
    assert not training.selects(settings(train=SELECTING, evaluation={"validation": None}))
    assert not training.selects(settings(train={"checkpoint_every": 0}, evaluation=given))
    assert not training.selects(settings(train={**SELECTING, "keep_candidates": False}, evaluation=given))


def test_placement_and_tracking_are_never_covered(settings: Settings) -> None:
    assert digest(settings(train={"max_failures": 9, "tracking": {"to": ["mlflow"]}})) == digest(settings())
