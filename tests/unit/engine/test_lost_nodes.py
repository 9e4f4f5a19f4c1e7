"""Engines that may go with their nodes; what Ray answers is given. With real nodes: `tests/faults/test_nodes.py`."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

import pytest
import ray

from ray_app.engine.lost_nodes import failure, where_now

GONE = ray.exceptions.ActorUnschedulableError("The actor is not schedulable:\nits node does not exist")


@dataclass
class Answers:
    """What Ray has for each call: a value, or what is raised; nothing of one that does not end."""

    known: dict[str, Any]
    waits: list[float] = field(default_factory=list)

    def wait(self, calls: list[str], timeout: float, num_returns: int = 1) -> tuple[list[str], list[str]]:
        self.waits.append(timeout)
        return [call for call in calls if call in self.known][:num_returns], []

    def get(self, call: str, timeout: float | None = None) -> Any:
        found = self.known.get(call, ray.exceptions.GetTimeoutError())
        if isinstance(found, Exception):
            raise found
        return found


class Actor:
    def __init__(self, name: str) -> None:
        self.pulse, self.name = self, name

    def remote(self) -> str:
        return self.name


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Answers:
    given = Answers({})
    monkeypatch.setattr(ray, "wait", given.wait)
    monkeypatch.setattr(ray, "get", given.get)
    monkeypatch.setattr(ray, "nodes", lambda: [{"NodeID": "m", "Alive": True}, {"NodeID": "n", "Alive": False}])
    return given


def test_engines_of_a_dead_node_live_where_they_answer_from_another(answers: Answers) -> None:
    stays, moved, silent, gone = (Actor(name) for name in ("stays", "moved", "silent", "gone"))
    answers.known = {"moved": {"node": "m"}, "gone": GONE}
    assert where_now({stays: "m", moved: "n", silent: "n", gone: "n"}) == {stays: "m", moved: "m"}


def test_where_no_node_has_died_nobody_is_asked(answers: Answers) -> None:
    one = Actor("one")
    assert where_now({one: "m"}) == {one: "m"}
    assert answers.waits == []


def test_calls_that_all_succeed(answers: Answers) -> None:
    answers.known = {"a": None, "b": 0.5}

    def unasked() -> Collection[Any]:
        raise AssertionError

    assert failure({"a": "x", "b": "y"}, unasked, 60) is None


def test_a_call_that_fails_with_its_node_does_not_count(answers: Answers) -> None:
    """The node has died since it was looked."""
    answers.known = {"a": GONE, "b": None}
    assert failure({"a": "x", "b": "y"}, lambda: ["y"], 60) is None
    assert failure({"a": "x", "b": "y"}, lambda: ["x", "y"], 60) == "its node does not exist"


def test_a_call_that_waits_for_a_dead_node_is_not_waited_for(answers: Answers) -> None:
    answers.known = {"b": None}
    assert failure({"a": "x", "b": "y"}, lambda: ["y"], 60) is None
    assert failure({"a": "x", "b": "y"}, lambda: ["x", "y"], 0) == "no answer after 0 s"
