"""Evaluation sets of which many questions fail in the engines: nothing is committed, and what failed is asked again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from loop_runs import DEMO, base_settings, merged

from ray_app.command.load_settings import load_settings
from ray_app.engine.manager import PoolManager
from ray_app.errors import RunError
from ray_app.generation.runner import Runner
from ray_app.judging.protocol import STAGE as EVALUATION
from ray_app.loop.config import IterateSettings
from ray_app.loop.run import do_steps
from ray_app.loop.run_record import describe
from ray_app.loop.stages.context import Context
from ray_app.loop.stages.inputs import Inputs
from ray_app.loop.steps import steps_of
from ray_app.run.folder import RunFolder, StageRecord, read_record, write_run
from ray_app.run.lease import Lease
from ray_app.run.shards import row_counts
from ray_app.system.background import OneByOne

pytestmark = pytest.mark.usefixtures("cluster")
SETS = ("validation", "other")
UNITS = 16  # of a set: both orders of eight rows


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A run of one judge that is evaluated on two sets, which are judged together."""
    part = {"test": [f"other={DEMO / 'test.jsonl'}"], "max_engine_errors": 0.05}
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(merged(base_settings(tmp_path), {"evaluation": part})))
    return file


def evaluate(config: Path, fails: float) -> list[StageRecord | None]:
    """What the command does of the evaluation, with engines of which such a share of requests fails; the commits."""
    settings = load_settings(IterateSettings, ["--config", str(config), "--judge.script", json.dumps({"fail": fails})])
    folder, inputs, pools, saying = RunFolder(settings.run_uri), Inputs(settings), PoolManager("t"), OneByOne()
    steps = [step for step in steps_of(settings, folder, inputs) if step.kind == EVALUATION]
    try:
        with Lease(folder.uri) as lease:
            write_run(folder.uri, describe(settings, steps))
            context = Context(settings, folder, Runner(pools, lease.fence, settings.shards), inputs)
            do_steps(context, steps, steps, lease, saying)
    finally:
        saying.end()
        pools.close()
    return [read_record(step.directory) for step in steps]


def test_sets_of_which_too_many_questions_failed_are_not_committed_and_asked_again(
    config: Path, tmp_path: Path
) -> None:
    """They would count as wrong, and be taken for the judge's own figures."""
    folders = [tmp_path / "run" / "iter_00" / EVALUATION / name for name in SETS]
    with pytest.raises(RunError, match=r"of 16 questions failed in the engines.* max_engine_errors 0\.05"):
        evaluate(config, fails=0.3)
    assert all(folder.is_dir() for folder in folders)
    assert not list(tmp_path.rglob("stage.json"))
    kept = [row_counts(str(folder)) for folder in folders]
    assert all(0 < faults["engine_error"] < UNITS for _, faults in kept)
    records = evaluate(config, fails=0.0)
    assert [(folder / "stage.json").is_file() for folder in folders] == [True, True]
    for record, (rows, _) in zip(records, kept, strict=True):
        assert record is not None
        assert (record.rows_in, record.rows_out, record.quarantined) == (UNITS, UNITS, {})
        assert record.extra["resumed_units"] == rows, "what was answered is not asked again"
