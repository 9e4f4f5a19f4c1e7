"""Claims on GPUs: what Ray counts, which GPUs they are, and the same ones taken again."""

from __future__ import annotations

from typing import Any

import pytest
import ray

from ray_app.errors import RunError
from ray_app.system import claims
from ray_app.system.claims import Claim, Place, claim, matched, release


def place(node: str, *gpus: str) -> Place:
    return Place(node, gpus)


def claims_of(*places: Place) -> list[Claim]:
    group: Any = None  # matching asks nothing of a group
    return [Claim(group, one) for one in places]


def test_the_same_gpus_in_another_order_are_matched() -> None:
    slept = [place("n", "0", "1"), place("n", "2", "3"), place("m", "0", "1")]
    taken = claims_of(place("m", "1", "0"), place("n", "2", "3"), place("n", "0", "1"))
    found = matched(slept, taken)
    assert found is not None
    assert [(one.place.node, set(one.place.gpus)) for one in found] == [
        ("n", {"0", "1"}),
        ("n", {"2", "3"}),
        ("m", {"0", "1"}),
    ]


@pytest.mark.parametrize(
    "taken",
    [
        [place("n", "0", "2"), place("n", "1", "3")],  # cut otherwise
        [place("m", "0", "1"), place("n", "2", "3")],  # on another node
        [place("n", "0", "1"), place("n", "0", "1")],  # shared, where they were not
    ],
)
def test_other_gpus_are_not_matched(taken: list[Place]) -> None:
    assert matched([place("n", "0", "1"), place("n", "2", "3")], claims_of(*taken)) is None


def test_engines_that_share_a_gpu_are_matched_one_by_one() -> None:
    shared = [place("n", "0"), place("n", "0")]
    assert len(matched(shared, claims_of(*shared)) or []) == 2


def test_a_claim_is_counted_until_it_is_released(gpus: int) -> None:
    taken = claim(1.0, 3, 30)
    try:
        assert ray.available_resources().get("GPU", 0) == gpus - 3
        ids = [one.place.gpus for one in taken]
        assert len(set(ids)) == 3  # a GPU each
        again_on = [one.place.node for one in taken]
    finally:
        release(taken)
    again = claim(1.0, 3, 30, again_on)
    try:
        assert matched([one.place for one in taken], again) is not None
    finally:
        release(again)


def test_more_than_there_is_is_told_and_leaves_nothing_claimed(
    gpus: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """While it is waited for, the log says what for, and what is free: others may hold it for long."""
    monkeypatch.setattr(claims, "TOLD_S", 0.3)
    with pytest.raises(RunError, match=r"2 times 3 GPU\(s\) were not free after 1 s"):
        claim(3.0, 2, 1)
    assert "waiting for 2 times 3 GPU(s): " in caplog.text
    assert "CPUs are free on 1 node(s)" in caplog.text
    whole = claim(float(gpus), 1, 30)
    release(whole)


def test_cpus_alone_are_claimed_with_no_gpu(gpus: int) -> None:
    """Those of training workers, whose GPUs were claimed before: they must not count as more of these."""
    (taken,) = claim(0, 1, 30, cpus=1)
    try:
        assert taken.place.gpus == ()
        assert ray.available_resources()["GPU"] == gpus
    finally:
        release([taken])
    with pytest.raises(RunError, match=r"1 times 1000 CPU\(s\) were not free after 1 s"):
        claim(0, 1, 1, cpus=1000)
