"""Least load among the replicas that answer."""

from __future__ import annotations

import pytest

from ray_app.engine.replicas import Replicas


def test_the_least_loaded_takes_the_next_rows() -> None:
    replicas = Replicas(3)
    with replicas.busy(0, 4), replicas.busy(1, 1), replicas.busy(2, 2):
        assert replicas.pick() == 1
    assert replicas.load == [0, 0, 0]


def test_silent_and_dead_replicas_get_nothing_until_they_answer() -> None:
    replicas = Replicas(2)
    replicas.silent.add(0)
    assert replicas.pick() == 1
    replicas.dead.add(1)
    assert replicas.pick() is None
    assert not replicas.all_dead
    replicas.silent.discard(0)
    assert replicas.pick() == 0
    replicas.dead.add(0)
    assert replicas.all_dead


def test_load_is_given_back_on_errors() -> None:
    replicas = Replicas(1)
    with pytest.raises(ValueError, match="x"), replicas.busy(0, 5):
        raise ValueError("x")
    assert replicas.load == [0]
