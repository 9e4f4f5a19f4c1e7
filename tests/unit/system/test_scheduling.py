"""A local Ray yields to what is busy; what computes under it does not."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from ray_app.system import scheduling

POLICY = [sys.executable, "-c", "import os; print(os.sched_getscheduler(0))"]
COMPUTE = [
    sys.executable,
    "-c",
    "import os, threading; from ray_app.system import scheduling; scheduling.compute(); "
    "t = threading.Thread(target=lambda: print(os.sched_getscheduler(0))); t.start(); t.join()",
]


@pytest.fixture(autouse=True)
def usual() -> Iterator[None]:
    """These tests begin under the usual policy, whichever the test run has."""
    before = os.sched_getscheduler(0)
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    yield
    os.sched_setscheduler(0, before, os.sched_param(0))


def test_what_a_local_ray_starts_does_not_push_engines_aside() -> None:
    with scheduling.yielding():
        assert int(subprocess.check_output(POLICY)) == os.SCHED_BATCH
    assert os.sched_getscheduler(0) == os.SCHED_OTHER
    assert scheduling.MARK not in os.environ


def test_an_engine_and_its_threads_share_the_cores_as_others_do() -> None:
    with scheduling.yielding():
        assert int(subprocess.check_output(COMPUTE)) == os.SCHED_OTHER


def test_a_policy_that_the_user_has_chosen_stays() -> None:
    os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    with scheduling.yielding():
        assert int(subprocess.check_output(COMPUTE)) == os.SCHED_BATCH
    assert os.sched_getscheduler(0) == os.SCHED_BATCH
