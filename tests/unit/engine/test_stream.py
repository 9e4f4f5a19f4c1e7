"""A stage: where its client stands, and at its end whose fault it was that units failed, lane by lane."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from ray_app.engine import stream
from ray_app.engine.base import UnitResult
from ray_app.engine.client import PoolClient
from ray_app.engine.settings import EngineSettings
from ray_app.engine.stream import HelperLost, helper_died, lanes_stage, program_stage, settle
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


NODE = "ab" * 28  # a node's id, as Ray writes it


class Lazy:
    """Stands for a Ray dataset; `options` are those of its stage."""

    def map_batches(self, stage: Any, **options: Any) -> Lazy:
        self.stage, self.options = stage, options
        return self


@pytest.mark.parametrize("of_several_tables", [False, True])
def test_the_client_of_a_stage_stands_on_the_node_of_the_driver_and_nowhere_else(
    monkeypatch: pytest.MonkeyPatch, of_several_tables: bool
) -> None:
    """Ray places an actor that takes no CPU on any node: on one with engines it would go with that node, and so would
    the stage. It takes none, because the node of a driver may offer none.
    """
    here = SimpleNamespace(get_node_id=lambda: NODE)
    monkeypatch.setattr(stream.ray, "get_runtime_context", lambda: here)
    settings = EngineSettings(model="m", kind="scripted").resolved(0)
    dataset, pool, program = Lazy(), SimpleNamespace(settings=settings, actors=["engine"], model="m"), SimpleNamespace()
    if of_several_tables:
        lanes_stage(dataset, pool, [program, program], Writer([]))  # type: ignore[arg-type, list-item]
    else:
        program_stage(dataset, pool, program, Writer([]), stage="judgments")  # type: ignore[arg-type]
    where = dataset.options["scheduling_strategy"]
    assert dataset.stage is PoolClient
    assert isinstance(where, NodeAffinitySchedulingStrategy)
    assert (where.node_id, where.soft) == (NODE, False)
    assert dataset.options["num_cpus"] == 0
