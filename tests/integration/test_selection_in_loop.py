"""Checkpoint selection in the loop: every saved step is judged on the validation pairs, and the best becomes M(1).

Judging is scripted, so that it is known which step is best; training is real.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from loop_runs import SMALL_TRAINING, Loop, scripted

pytestmark = pytest.mark.timeout(600)
ROWS = 6


def validation_file(folder: Path) -> Path:
    """Pairs whose better side the scripted judge can see."""
    rows = []
    for i in range(ROWS):
        good, bad = f"GOOD answer {i}", f"poor answer {i}"
        a, b = (good, bad) if i % 2 else (bad, good)
        row = {"id": f"v{i}", "instruction": f"Question {i}?", "response_a": a, "response_b": b}
        rows.append({**row, "label": "A" if i % 2 else "B"})
    file = folder / "validation.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


@pytest.fixture(scope="module")
def finished(shallow: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loop]:
    """One iteration of three steps, each a candidate; the second judges right, the others wrong. Some rows of the
    training set are too long to train on.
    """
    folder = tmp_path_factory.mktemp("selection")
    script = {"p": [0.5], "p_of": {"step-000002": [1.0], "step-": [0.0]}, "words": [8, 8, 8, 200]}
    loop = Loop(
        folder,
        {
            "iterations": 1,
            "judge": scripted(shallow, **script),
            "train": {**SMALL_TRAINING, "checkpoint_every": 1, "max_steps": 3, "batch_rows": 8, "sequence_length": 512},
            "evaluation": {"validation": f"validation={validation_file(folder)}", "limit": None},
        },
    )
    try:
        loop.succeeds()
        yield loop
    finally:
        loop.stop()


def metrics_line(loop: Loop, stage: str = "training") -> dict:
    lines = [json.loads(line) for line in (loop.run / "metrics.jsonl").read_text().splitlines()]
    return next(line for line in lines if line["stage"] == stage)


def test_every_candidate_has_its_score(finished: Loop) -> None:
    extra = metrics_line(finished)["extra"]
    assert [(c["step"], c["accuracy"], c["n"]) for c in extra["candidates"]] == [(1, 0, 6), (2, 1, 6), (3, 0, 6)]
    assert extra["candidates"][1]["first_position_rate"] == 0.5
    (folder,) = (finished.run / "iter_01/training/selection").iterdir()
    for step in (1, 2, 3):
        votes = finished.rows(f"iter_01/training/selection/{folder.name}/step-{step:06d}")
        assert len(votes) == 2 * ROWS
        assert {vote["judge"] for vote in votes} == {f"iter_01/step-{step:06d}"}


def test_the_best_step_becomes_the_checkpoint(finished: Loop) -> None:
    assert metrics_line(finished)["extra"]["selected_step"] == 2
    assert json.loads((finished.run / "iter_01/checkpoint/candidate.json").read_text())["step"] == 2


def test_cards_lie_beside_what_they_describe(finished: Loop) -> None:
    import datasets

    card = (finished.run / "iter_01/checkpoint/README.md").read_text()
    assert "| 2 (this one) | 100.0 % | 50.0 % | 6 |" in card.splitlines()
    assert "| validation (selected on) | accuracy, both orders |" in card
    assert str(finished.folder) not in card
    cache = str(finished.folder / "datasets")
    loaded = datasets.load_dataset(str(finished.run / "iter_01/train_set"), split="train", cache_dir=cache)
    assert list(loaded) == trained_on(finished)


def test_rows_too_long_are_quarantined_before_letters_are_balanced(finished: Loop) -> None:
    faults = finished.rows("iter_01/train_set", "quarantine")
    line, training = metrics_line(finished, "train_set"), metrics_line(finished)
    assert {fault["reason"] for fault in faults} == {"too_long"}
    assert line["quarantined"] == {"too_long": len(faults)}
    trained = {"/".join(str(r[k]) for k in ("pair_id", "order", "sample", "iteration")) for r in trained_on(finished)}
    assert not {fault["id"] for fault in faults} & trained
    assert (training["rows_in"], training["quarantined"]) == (len(trained), {})
    letters = line["extra"]["trained_by_letter"]
    assert letters["A"] == letters["B"]


def trained_on(loop: Loop) -> list[dict]:
    return loop.rows("iter_01/train_set")


def test_another_validation_set_is_refused_by_name(finished: Loop) -> None:
    other = finished.folder / "other.jsonl"
    other.write_text((finished.folder / "validation.jsonl").read_text().replace("Question", "Query"))
    refused = finished("--evaluation.validation", f"validation={other}")
    assert refused.code == 2
    assert "training" in refused.one_line or "evaluation" in refused.one_line
    assert "other.jsonl" in refused.one_line
