"""What the training stage's fingerprint covers: how a checkpoint is selected, where one is, and nothing of it else."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ray_app.engine.manager import PoolManager
from ray_app.errors import InputError
from ray_app.generation.runner import Runner
from ray_app.loop.config import IterateSettings
from ray_app.loop.stages import training
from ray_app.loop.stages.context import Context
from ray_app.loop.stages.inputs import Inputs
from ray_app.loop.steps import steps_of
from ray_app.run.fingerprint import fingerprint
from ray_app.train.candidates import Candidate
from ray_app.train.trainer import TrainResult

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


class Fits:
    """Stands for the trainer: notes what each fit begins with, and leaves a folder where a checkpoint belongs."""

    def __init__(self) -> None:
        self.told: list[dict[str, Any]] = []

    def __call__(self, train: Any, **given: Any) -> TrainResult:
        folder = Path(given["checkpoint_dir"])
        folder.mkdir(parents=True)
        (folder / "config.json").write_text("{}")
        self.told.append({"start": train.start, **{n: given[n] for n in ("seed_model", "revision", "origin")}})
        return TrainResult(4, 2, 1.0, 100, 1.0, [2.0, 1.0], [], [Candidate(2, 1.0, 100, 1.0, str(folder))], 2)


@pytest.fixture
def fits(monkeypatch: pytest.MonkeyPatch) -> Fits:
    found = Fits()
    monkeypatch.setattr(training, "fit", found)
    return found


def with_trainer(run: Context) -> Context:
    """Training asks whether the cluster may grow: there is none here."""
    return replace(run, runner=Runner(PoolManager(run_id="test", may_grow=False)))


def test_each_iteration_begins_with_the_seed_or_with_the_judge_before_it(
    context: Callable[..., Context], fits: Fits
) -> None:
    for start in ("seed", "previous"):
        judge = {"revision": "v2", "model": "org/seed"}
        run = with_trainer(context(name=start, iterations=3, train={"start": start}, judge=judge))
        steps = [s for s in steps_of(run.settings, run.folder, run.inputs) if s.stage == "training"]
        extras = [step.run(run).extra for step in steps]
        seed = {"start": "seed", "seed_model": "org/seed", "revision": "v2", "origin": ""}
        told, fits.told = fits.told, []
        if start == "seed":
            assert told == [seed] * 3
            assert not any("started_from" in extra for extra in extras)
            continue
        assert told[0] == seed
        for iteration in (2, 3):
            before = steps[iteration - 2].fingerprint.digest
            made = run.folder.checkpoint(iteration - 1)
            wanted = {"start": "previous", "seed_model": made, "revision": None, "origin": before}
            assert told[iteration - 1] == wanted
        assert [extra.get("started_from") for extra in extras] == [None, "iter_01/checkpoint", "iter_02/checkpoint"]


def test_a_checkpoint_to_begin_with_that_is_gone_is_named(context: Callable[..., Context], fits: Fits) -> None:
    run = with_trainer(context(iterations=2, train={"start": "previous"}))
    second = [s for s in steps_of(run.settings, run.folder, run.inputs) if s.stage == "training"][1]
    with pytest.raises(InputError, match=r"iteration 2 begins its training with iter_01/checkpoint: .* does not exist"):
        second.run(run)
    assert fits.told == []
