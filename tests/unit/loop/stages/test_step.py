"""What is done with one step of a run: alone, with others of its group, with the step it feeds, ahead of its turn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from ray_app.generation.runner import StageResult
from ray_app.loop.stages import training
from ray_app.loop.step import Ended, Step, begin_ahead, run_step
from ray_app.loop.steps import steps_of
from ray_app.run.folder import RunFolder

BASE: dict[str, Any] = {"iterations": 2, "instructions": {"heldout_fraction": 0.1}}


def steps(settings: Any) -> list[Step]:
    return steps_of(settings, RunFolder(settings.run_uri))


def numbers(ended: Ended) -> list[tuple[Step, StageResult]]:
    return list(zip(ended.steps, ended.results(), strict=True))


@pytest.mark.parametrize(
    ("both_left", "allowed", "together"), [(True, True, True), (True, False, False), (False, True, False)]
)
def test_a_fed_step_runs_along_where_it_can(settings: Any, both_left: bool, allowed: bool, together: bool) -> None:
    made, judged, alone = StageResult(1), StageResult(2), StageResult(3)
    all_steps = steps(settings(**BASE))
    todo = [step for step in all_steps if both_left or step.stage != "judgments"]
    (pairs,) = (step for step in todo if step.stage == "pairs")
    assert pairs.feeds is not None
    feed = replace(pairs.feeds, run=lambda _: (made, judged) if allowed else None)
    pairs = replace(pairs, feeds=feed, run=lambda _: alone)
    found = [(str(step), result) for step, result in numbers(run_step(pairs, todo, None))]  # type: ignore[arg-type]
    assert found == ([("pairs", made), ("iteration 1: judgments", judged)] if together else [("pairs", alone)])


def test_sets_of_an_iteration_that_are_left_are_judged_together(settings: Any) -> None:
    all_steps = steps(settings(**BASE))
    of_first = [step for step in all_steps if step.stage == "evaluation" and step.iteration == 1]
    assert len(of_first) > 1
    asked: list[list[str]] = []

    def judge(_: Any, names: Any) -> Callable[[], list[StageResult]]:
        asked.append(list(names))
        return lambda: [StageResult(extra={"set": name}) for name in names]

    todo = [
        replace(step, member=replace(step.member, run=judge)) if step.member else step
        for step in all_steps
        if step is not of_first[0]  # it is committed
    ]
    first = next(step for step in todo if step.directory == of_first[1].directory)
    found = run_step(first, todo, None)  # type: ignore[arg-type]
    assert found.owed
    assert [(step.directory, result.extra["set"]) for step, result in numbers(found)] == [
        (step.directory, step.directory.rsplit("/", 1)[-1]) for step in of_first[1:]
    ]
    assert asked == [[step.directory.rsplit("/", 1)[-1] for step in of_first[1:]]]


def test_a_training_starts_its_workers_with_the_judging_of_its_rows_and_builds_its_model_with_their_choice(
    settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[tuple[str, int]] = []
    for name in ("get_ready", "build_early"):
        monkeypatch.setattr(
            training, name, lambda context, iteration, start, name=name: begun.append((name, iteration))
        )
    todo = steps(settings(**BASE))
    told = {}
    for number, step in enumerate(todo):
        begin_ahead(step, todo[number:], None)
        told[str(step)] = list(begun)
        begun.clear()
    assert {name: found for name, found in told.items() if found} == {
        "pairs": [("get_ready", 1)],  # they stream into judging
        "iteration 1: judgments": [("get_ready", 1)],
        "iteration 1: train set": [("build_early", 1)],
        "iteration 2: judgments": [("get_ready", 2)],
        "iteration 2: train set": [("build_early", 2)],
    }
