"""A finished run to look at: the recorded one of scripted engines, made in pairwise mode."""

from __future__ import annotations

import json
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
import recorded


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """Folder of a recorded run, by its name."""
    where = tmp_path_factory.mktemp("runs")
    with tarfile.open(recorded.FOLDERS) as packed:
        packed.extractall(where, filter="data")

    def folder(name: str) -> str:
        found: Path = where / "runs" / name
        assert found.is_dir()
        return str(found)

    return folder


@pytest.fixture(scope="session")
def then_dpo(runs: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> str:
    """Folder of a run that trains twice in its iteration: the recorded pairwise run, and a second training whose
    judgments and verdicts are the first's, and whose training set and losses are the recorded DPO run's.
    """
    run = tmp_path_factory.mktemp("then") / "then_dpo"
    first, preferences = Path(runs("pairwise")), Path(runs("dpo"))
    shutil.copytree(first, run)
    lines = (run / "metrics.jsonl").read_text()
    for stage, source in (
        ("judgments", first),
        ("train_set", preferences),
        ("training", preferences),
        ("evaluation", first),
    ):
        folder = "checkpoint" if stage == "training" else stage
        shutil.copytree(source / "iter_01" / folder, run / "iter_01" / "dpo" / folder)
        made = [json.loads(text) for text in (source / "metrics.jsonl").read_text().splitlines()]
        own = [line for line in made if line["iteration"] == 1 and line["stage"] == stage]
        lines += "".join(json.dumps({**line, "stage": f"dpo_{stage}"}) + "\n" for line in own)
    (run / "metrics.jsonl").write_text(lines)
    described = json.loads((run / "run.json").read_text())
    described["settings"]["then_dpo"] = {"train": {**described["settings"]["train"], "recipe": "dpo"}}
    (run / "run.json").write_text(json.dumps(described))
    return str(run)
