"""The end of a stage: whose fault it was that units failed, lane by lane."""

from __future__ import annotations

from typing import Any

import pytest
import ray

from ray_app.engine import stream
from ray_app.engine.base import UnitResult
from ray_app.engine.stream import HelperLost, helper_died, settle
from ray_app.errors import RunError


class Call:
    """A method of the writer's handle; what `remote` returns is its value here."""

    def __init__(self, value: Any, calls: list[Any]) -> None:
        self.value, self.calls = value, calls

    def remote(self, *arguments: Any) -> Any:
        self.calls += arguments
        return self.value


class Writer:
    """Stands for the writer actor: what its tables hold already, and what it is given."""

    def __init__(self, answered: list[bool]) -> None:
        self.given: list[Any] = []
        self.answered = Call(answered, [])
        self.add = Call(None, self.given)
        self.finish = Call([{} for _ in answered], [])


@pytest.fixture(autouse=True)
def values(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream.ray, "get", lambda value: value)


def failed(lane: int, reason: str) -> tuple[int, UnitResult]:
    return lane, UnitResult("u", quarantine=[{"id": "u", "stage": "s", "reason": reason, "detail": "it is down"}])


def test_an_outage_over_a_whole_small_table_is_no_fault_of_its_rows() -> None:
    """The other table was done before: its answers say nothing of the engine as it is now."""
    held = [failed(1, "engine_error")] * 30
    with pytest.raises(RunError, match="no request succeeded: it is down"):
        settle("evaluation", [500, 30], held, Writer([True, False]))


def test_units_that_failed_among_others_are_quarantined() -> None:
    held = [failed(0, "engine_error"), failed(1, "refused")]
    writer = Writer([True, True])
    assert settle("evaluation", [500, 1], held, writer) == [{}, {}]
    assert writer.given == [held]


@pytest.mark.parametrize(
    "fault",
    [
        ray.exceptions.OutOfMemoryError("the worker was killed"),
        ray.exceptions.ObjectReconstructionFailedError("00", None, "", None),
        ray.exceptions.RayActorError(),
    ],
)
def test_a_helper_that_is_lost_in_any_way_is_known_as_lost(fault: Exception) -> None:
    """Then the stage goes on from its closed shards; a raw error of Ray would end the run."""

    class Dead(Writer):
        def __init__(self) -> None:
            super().__init__([True])
            self.answered = self

        def remote(self) -> Any:
            raise fault

    assert helper_died(fault)
    with pytest.raises(HelperLost, match="the shard writer died"):
        settle("judging", [1], [], Dead())


def test_a_gpu_without_memory_is_no_lost_helper() -> None:
    assert not helper_died(RuntimeError("torch.OutOfMemoryError: CUDA out of memory"))
    assert not helper_died(RuntimeError("torch.cuda.OutOfMemoryError: CUDA out of memory"))
