"""What nobody waits for any more, its engine drops: a request of the service that was answered 504, or hung up on.

The client's side of it, with stand-ins for engines: `unit/serving/test_deadlines.py`, `unit/engine/test_asking.py`.
That a call which is cancelled ends in the actor too is Ray's part, and only a living actor shows it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ray_app.engine.actor import value
from ray_app.engine.asking import Asker
from ray_app.engine.base import UnitResult, Work, alone
from ray_app.engine.pool import EnginePool
from ray_app.engine.supervisor import Lanes, Limits

pytestmark = pytest.mark.usefixtures("cluster")
Make = Callable[..., Any]
LIMIT_S = 60.0


async def come_to(actor: Any, rows: int) -> bool:
    """Whether so many rows are at work in an engine before long."""
    until = time.monotonic() + LIMIT_S
    while (await value(actor.pulse.remote()))["at_work"] != rows:
        if time.monotonic() > until:
            return False
        await asyncio.sleep(0.1)
    return True


def test_an_engine_drops_the_rows_of_who_has_given_up_and_no_others(
    tmp_path: Path, units: Make, program: Make, scripted: Make
) -> None:
    """Both requests have two rows, which the engine holds until the test says go."""
    go = tmp_path / "go"

    async def main(pool: EnginePool) -> list[UnitResult]:
        (actor,) = pool.actors
        work = Work(program(), "serve", None, pool.model)
        asker, lanes = Asker(pool.actors, pool.model, Limits.of(pool.settings, patient=True)), Lanes((work,), (work,))
        gone, stays = (asyncio.create_task(asker.ask(lanes, alone(rows))) for rows in (units(2)[:2], units(2)[2:]))
        try:
            assert await come_to(actor, 4), "both are asked"
            process = (await value(actor.pulse.remote()))["pid"]
            gone.cancel()
            assert await come_to(actor, 2), "the engine works on for nobody"
            assert not stays.done()
            go.touch()
            answers = await asyncio.wait_for(stays, LIMIT_S)
            assert await come_to(actor, 0)
            assert (await value(actor.pulse.remote()))["pid"] == process, "it was not built anew for this"
        finally:
            asker.close()
        return answers

    script = {"p": [1.0], "hold": r"Question", "until": str(go)}
    with EnginePool(scripted(script), "judge", "t").start() as pool:
        answers = asyncio.run(main(pool))
    assert [len(unit.rows) for unit in answers] == [1, 1]
