"""Least load among the replicas that answer; one that errs rests, one that is lost is built anew, at a limited rate."""

from __future__ import annotations

import pytest

from ray_app.engine.replicas import BREAK_AFTER, EXPLAINED, LONGEST_REST_S, MANY, PAUSES_S, REST_S, WINDOW_S, Replicas


def test_the_least_loaded_takes_the_next_rows() -> None:
    replicas = Replicas(3)
    with replicas.busy(0, 4), replicas.busy(1, 1), replicas.busy(2, 2):
        assert replicas.pick() == 1
        assert replicas.pick(avoid={1}) == 2
    assert replicas.load == [0, 0, 0]


def test_one_to_be_avoided_is_taken_where_no_other_takes_rows() -> None:
    replicas = Replicas(2)
    replicas.lost(1, 0.0)
    assert replicas.pick(avoid={0}) == 0


def test_a_lost_replica_gets_nothing_until_it_is_built_anew() -> None:
    replicas = Replicas(2)
    replicas.lost(0, 0.0)
    replicas.gone(1)
    assert replicas.pick() is None
    assert replicas.coming_back
    assert not replicas.all_dead
    replicas.restored(0)
    assert replicas.pick() == 0
    replicas.gone(0)
    assert replicas.all_dead


def test_load_is_given_back_on_errors() -> None:
    replicas = Replicas(1)
    with pytest.raises(ValueError, match="x"), replicas.busy(0, 5):
        raise ValueError("x")
    assert replicas.load == [0]


def test_what_errs_again_and_again_rests_until_it_answers() -> None:
    replicas = Replicas(2)
    replicas.answered(1)
    blamed = [replicas.erred(0) for _ in range(BREAK_AFTER + 1)]
    assert blamed == [True] * (BREAK_AFTER - 1) + [False] * 2, "no row is to pay for a broken engine"
    assert replicas.pick() == 1
    assert [replicas.rest(0) for _ in range(8)] == [0.0, *(min(LONGEST_REST_S, REST_S * 2**n) for n in range(7))]
    replicas.answered(0)
    assert replicas.pick(avoid={1}) == 0
    assert replicas.erred(0)


def test_before_any_answer_nobody_rests() -> None:
    """The fault is one of all then: settings, say. It is told soon."""
    replicas = Replicas(1)
    assert all(replicas.erred(0) for _ in range(100))
    assert replicas.pick() == 0


def test_a_replica_that_dies_without_an_answer_between_is_given_up() -> None:
    replicas = Replicas(1)
    assert [replicas.lost(0, 0.0) for _ in range(5)] == [*PAUSES_S, None]
    assert replicas.all_dead
    patient = Replicas(1, patient=True)
    assert [patient.lost(0, 0.0) for _ in range(6)] == [*PAUSES_S, PAUSES_S[-1], PAUSES_S[-1]]


def test_losses_that_a_row_explains_do_not_count_but_not_for_ever() -> None:
    replicas = Replicas(1)
    for _ in range(EXPLAINED):
        assert [replicas.lost(0, 0.0) for _ in range(2)] == [*PAUSES_S[:2]]
        replicas.explain(0)
    pauses = []
    while not replicas.all_dead:
        pauses.append(replicas.lost(0, 0.0))
        replicas.explain(0)
    assert pauses == [*PAUSES_S, None]
    replicas = Replicas(1)
    for _ in range(10):
        replicas.lost(0, 0.0)
        replicas.explain(0)
        replicas.answered(0)
    assert replicas.lost(0, 0.0) == PAUSES_S[0]


def test_deaths_between_answers_are_limited_by_their_rate_alone() -> None:
    replicas = Replicas(1)

    def dies(at: float) -> float | None:
        replicas.answered(0)
        return replicas.lost(0, at)

    assert [dies(float(n)) for n in range(MANY)] == [0.0] * MANY
    assert dies(100.0) == WINDOW_S - 100.0, "until the first of them is long ago"
    assert dies(WINDOW_S + 200.0) == 0.0
    assert [dies(n * WINDOW_S) for n in range(2, 500)] == [0.0] * 498


def test_rows_that_are_asked_alone_keep_one_replica_for_themselves() -> None:
    replicas = Replicas(3)
    with replicas.busy(0, 1):
        assert replicas.set_aside() == 1
    assert replicas.pick() == 0
    replicas.lost(1, 0.0)
    assert replicas.set_aside() == 1, "the others work on while it is built anew"
    replicas.gone(1)
    assert replicas.set_aside() == 0
    replicas.answered(0)
    for _ in range(BREAK_AFTER):
        replicas.erred(0)
    assert replicas.set_aside() == 2
