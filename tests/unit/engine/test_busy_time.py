"""How long an engine worked: the union of its rows' times, not their sum."""

from __future__ import annotations

import pytest

from ray_app.engine import actor
from ray_app.engine.actor import BusyTime


def test_rows_at_work_at_the_same_time_count_once(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(actor.time, "monotonic", lambda: now[0])
    busy = BusyTime()
    with busy:
        now[0] = 2.0
        with busy:
            now[0] = 3.0
            assert busy.seconds() == 3.0
        now[0] = 5.0
    now[0] = 9.0
    assert busy.seconds() == 5.0
    with busy:
        now[0] = 10.0
    assert busy.seconds() == 6.0
