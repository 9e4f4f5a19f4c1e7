"""What a stage says once its shards are closed: its numbers, or that they are not what was asked for. No Ray."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ray_app.base.schema import JUDGMENTS
from ray_app.engine.settings import EngineSettings
from ray_app.engine.stream import HelperLost
from ray_app.errors import RunError
from ray_app.generation import runner
from ray_app.generation.runner import Job, driven, result_of
from ray_app.run import storage
from ray_app.run.lease import Fence
from ray_app.run.shards import ShardWriter, shard_files


def job(place: Path, total: int) -> Job:
    engine: Any = EngineSettings(model="m", kind="scripted")
    key, source, program = ("pair_id", "order"), None, None
    return Job("judgments", str(place), JUDGMENTS, key, source, total, program, engine, "judge", 2)


def judged(place: Path, *names: str, lost: tuple[str, ...] = ()) -> None:
    """One attempt: units of two samples, and quarantined ones; a unit a shard."""
    empty = dict.fromkeys(JUDGMENTS.names)
    with ShardWriter(str(place), JUDGMENTS, max_rows=2) as writer:
        for name in names:
            own = {**empty, "pair_id": name, "order": "ab", "prompt_tokens": 30, "completion_tokens": 4}
            writer.add([{**own, "sample": sample} for sample in range(2)])
        writer.quarantine([{"id": f"{n}:ab", "stage": "judgments", "reason": "empty", "detail": ""} for n in lost])


def test_numbers_are_those_of_all_attempts(tmp_path: Path) -> None:
    judged(tmp_path, "a", lost=("b",))
    judged(tmp_path, "c")
    result = result_of(job(tmp_path, 3), {"prompt_tokens": 1}, 2.5, {"resumed_units": 2})
    assert (result.rows_in, result.rows_out, result.quarantined) == (3, 4, {"empty": 1})
    assert (result.prompt_tokens, result.completion_tokens, result.seconds) == (120, 16, 2.5)


def test_a_table_without_tokens_tells_those_of_this_attempt(tmp_path: Path) -> None:
    bare = JUDGMENTS.remove(JUDGMENTS.get_field_index("prompt_tokens"))
    judged(tmp_path, "a")
    result = result_of(replace(job(tmp_path, 1), schema=bare), {"prompt_tokens": 7, "completion_tokens": 8.0}, 0.0, {})
    assert (result.prompt_tokens, result.completion_tokens) == (7, 8)


def test_a_stage_that_lost_a_shard_is_not_committed_and_goes_on(tmp_path: Path) -> None:
    """Whoever removed it (another driver, a disk, a hand): its unit is asked again by the same command."""
    judged(tmp_path, "a", "b", "c", lost=("d",))
    result_of(job(tmp_path, 4), {}, 0.0, {})
    storage.remove(shard_files(str(tmp_path))[1])
    with pytest.raises(RunError, match=r"iteration 2: judgments: 3 of 4 units are .*so 1 are lost; nothing is commi"):
        result_of(job(tmp_path, 4), {}, 0.0, {})
    assert len(job(tmp_path, 4).done()) == 3
    judged(tmp_path, "b")
    assert result_of(job(tmp_path, 4), {}, 0.0, {}).rows_out == 6


def test_a_stage_with_more_than_was_asked_is_not_committed(tmp_path: Path) -> None:
    judged(tmp_path, "a", "b")
    with pytest.raises(RunError, match=r"2 units are in closed shards or quarantined, but only 1 were asked for \(/"):
        result_of(job(tmp_path, 1), {}, 0.0, {})


def test_a_stage_whose_unit_two_drivers_wrote_is_not_committed(tmp_path: Path) -> None:
    judged(tmp_path, "a", "b")
    judged(tmp_path, "b")
    with pytest.raises(RunError, match=r"1 unit\(s\) have rows in two shards \('b:ab' among them\)"):
        result_of(job(tmp_path, 2), {}, 0.0, {})


def test_rows_stand_where_an_old_driver_wrote_late_that_their_unit_is_quarantined(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It stood still between its fence and the write; meanwhile the new driver has asked the unit again."""
    judged(tmp_path, "a", "b", lost=("c",))
    judged(tmp_path, lost=("a",))
    result = result_of(job(tmp_path, 3), {}, 0.0, {})
    assert (result.rows_out, result.quarantined) == (4, {"empty": 1})
    assert job(tmp_path, 3).tally().superseded == ()
    assert "iteration 2: judgments: 1 unit(s) have rows, and were quarantined by a driver that held" in caplog.text


def test_who_has_lost_the_run_changes_no_quarantine(tmp_path: Path) -> None:
    judged(tmp_path, "a", lost=("a",))
    lost: Any = Fence(str(tmp_path / "lease.json"), "nobody")
    with pytest.raises(RunError, match=r"lease\.json is gone"):
        result_of(job(tmp_path, 1), {}, 0.0, {}, lost)
    assert job(tmp_path, 1).tally().superseded == ("a:ab",)


class Drives:
    """Stands for the drives of a stage: those before `succeeds` end with `fault`."""

    def __init__(self, fault: Exception, succeeds: int | None = None) -> None:
        self.fault, self.succeeds, self.many = fault, succeeds, 0

    def __call__(self) -> str:
        self.many += 1
        if self.many == self.succeeds:
            return "done"
        raise self.fault


def test_a_stage_whose_helpers_die_again_and_again_is_driven_three_times_and_no_more() -> None:
    """Something is wrong then that another drive does not heal, and it would cost the hours of the engines."""
    drives = Drives(HelperLost("the client died"))
    with pytest.raises(HelperLost, match="the client died"):
        driven("judging", drives)
    assert drives.many == 3


def test_the_last_drive_of_a_stage_may_still_end_it(caplog: pytest.LogCaptureFixture) -> None:
    drives = Drives(HelperLost("the client died"), succeeds=3)
    assert driven("judging", drives) == "done"
    assert caplog.messages == ["the client died; judging goes on from its closed shards"] * 2


def test_a_stage_is_not_driven_again_after_a_fault_that_is_no_helpers_death() -> None:
    drives = Drives(RunError("no request succeeded"))
    with pytest.raises(RunError, match="no request succeeded"):
        driven("judging", drives)
    assert drives.many == 1


def test_a_stage_of_a_run_that_is_stopped_is_not_driven_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its helpers die because the command ends."""
    monkeypatch.setattr(runner, "stopped", lambda: True)
    drives = Drives(HelperLost("the client died"))
    with pytest.raises(HelperLost):
        driven("judging", drives)
    assert drives.many == 1
