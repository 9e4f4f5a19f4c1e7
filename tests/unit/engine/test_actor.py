"""An engine actor that Ray has built anew starts with the weights that it is asked for; a fault of a row is its own."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from ray_app.engine import actor as module
from ray_app.engine.actor import EngineActor
from ray_app.engine.base import EngineDied, Start, UnitResult, Work, alone
from ray_app.engine.sample_limit import SampleTimeout
from ray_app.engine.settings import EngineSettings

SETTINGS = EngineSettings(model="candidate-1", kind="scripted", revision="main")


class Recorded:
    """Stands for an engine: what it was started with, and given."""

    control: frozenset[str] = frozenset()

    def __init__(self, settings: EngineSettings) -> None:
        self.started, self.loaded = settings, [settings.model]

    def generated(self) -> int:
        return 0

    async def reload(self, model: str) -> None:
        self.loaded.append(model)


@pytest.fixture
def engines(monkeypatch: pytest.MonkeyPatch) -> list[Recorded]:
    made: list[Recorded] = []

    def build(settings: EngineSettings, _: Start) -> Recorded:
        if settings.model == "gone":
            raise FileNotFoundError("gone does not exist")
        made.append(Recorded(settings))
        return made[-1]

    monkeypatch.setattr(module, "build_engine", build)
    return made


class Program:
    def __init__(self, fault: Exception | None = None) -> None:
        self.fault = fault

    def unit_of(self, row: dict[str, Any]) -> str:
        return str(row["id"])

    async def __call__(self, _: Any, row: dict[str, Any]) -> UnitResult:
        if self.fault:
            raise self.fault
        return UnitResult(str(row["id"]))


def asked(actor: EngineActor, model: str, program: Any = None) -> list[UnitResult]:
    return asyncio.run(actor.run([Work(program or Program(), "judgments", 1, model)], alone([{"id": 1}])))


def test_one_that_was_built_anew_never_reads_the_weights_of_its_first_start(
    engines: list[Recorded], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their folder may be gone: that of a checkpoint that was not chosen."""
    monkeypatch.setattr(module, "rebuilt", lambda: True)
    actor = EngineActor(SETTINGS, "judge")
    assert not engines
    assert asyncio.run(actor.pulse())["built"] is False
    assert asyncio.run(actor.revive("chosen")) is None
    (engine,) = engines
    assert (engine.started.model, engine.started.revision, engine.loaded) == ("chosen", None, ["chosen"])
    asked(actor, "chosen")
    assert len(engines) == 1


def test_one_that_starts_as_its_base_still_does(engines: list[Recorded], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "rebuilt", lambda: True)
    actor = EngineActor(SETTINGS, "judge", Start(without_weights=True))
    asyncio.run(actor.revive("chosen"))
    (engine,) = engines
    assert (engine.started, engine.loaded) == (SETTINGS, ["candidate-1", "chosen"])


def test_a_start_that_fails_is_told_in_one_line(engines: list[Recorded], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "rebuilt", lambda: True)
    actor = EngineActor(SETTINGS, "judge")
    assert asyncio.run(actor.revive("gone")) == "FileNotFoundError: gone does not exist"
    with pytest.raises(RuntimeError, match=r"^FileNotFoundError: gone does not exist$"):
        asked(actor, "gone")


def test_a_living_engine_takes_other_weights_in_place(engines: list[Recorded]) -> None:
    actor = EngineActor(SETTINGS, "judge")
    asked(actor, "candidate-1")
    asked(actor, "second")
    assert [engine.loaded for engine in engines] == [["candidate-1", "second"]]


def test_a_sample_over_its_time_is_a_fault_of_its_row(engines: list[Recorded]) -> None:
    (unit,) = asked(EngineActor(SETTINGS, "judge"), "candidate-1", Program(SampleTimeout("too slow")))
    assert unit.quarantine == [{"id": "1", "stage": "judgments", "reason": "timeout", "detail": "too slow"}]


def test_the_death_of_an_engine_is_the_end_of_its_process(
    engines: list[Recorded], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Ended(BaseException):
        pass

    def end(code: int) -> None:
        assert code == 1
        raise Ended

    monkeypatch.setattr(module.os, "_exit", end)
    with pytest.raises(Ended):
        asked(EngineActor(SETTINGS, "judge"), "candidate-1", Program(EngineDied("CUDA error")))
