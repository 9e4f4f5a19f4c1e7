"""Commits of steps: with the account of the devices' time, and not where another driver holds the run."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ray_app.errors import RunError
from ray_app.generation.runner import StageResult
from ray_app.loop.run import Spent, commit_all
from ray_app.loop.step import Ended
from ray_app.loop.steps import steps_of
from ray_app.run.folder import RunFolder, begin, read_record
from ray_app.run.lease import Fence

SPENT = Spent("then", 2.0, {})


def lease(lost: bool = False) -> Any:
    """One that is held, or was taken over."""

    def check() -> None:
        if lost:
            raise RunError("another driver took over this run")

    return SimpleNamespace(fence=SimpleNamespace(check=check))


@pytest.fixture
def ended(settings: Any) -> Ended:
    made = settings(iterations=1, instructions={"heldout_fraction": 0.1})
    sets = [step for step in steps_of(made, RunFolder(made.run_uri)) if step.stage == "evaluation" and step.member]
    for step in sets:
        begin(step.directory, step.fingerprint)
    return Ended(sets, lambda: [StageResult(rows_out=number) for number in range(len(sets))], owed=True)


def test_the_first_of_them_carries_the_account(ended: Ended) -> None:
    commit_all(ended.steps, ended.results(), Spent("then", 2.0, {"busy": 3.0}), lease())
    records = [read_record(step.directory) for step in ended.steps]
    assert [record and record.rows_out for record in records] == list(range(len(records)))
    assert [record and record.extra.get("device_time") for record in records][:2] == [{"busy": 3.0}, None]


def test_nothing_is_committed_to_a_run_that_another_driver_holds(ended: Ended) -> None:
    with pytest.raises(RunError, match="took over"):
        commit_all(ended.steps, ended.results(), SPENT, lease(lost=True))
    assert not any(read_record(step.directory) for step in ended.steps)


def test_figures_that_come_after_the_lease_is_given_back_are_not_committed(ended: Ended, tmp_path: Path) -> None:
    """A command that stops leaves a background thread behind for a moment; its run may begin anew elsewhere."""
    held: Any = SimpleNamespace(fence=Fence(str(tmp_path / "lease.json"), "me"))  # the file is gone
    with pytest.raises(RunError, match="does not hold the run"):
        commit_all(ended.steps, ended.results(), SPENT, held)
