"""Whatever becomes of engines, every row gets an answer or a reason. Engines are stand-ins here, of no process."""

from __future__ import annotations

import asyncio
import dataclasses
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import ray

from ray_app.engine import asking, replicas, supervisor
from ray_app.engine.actor import faulty
from ray_app.engine.asking import Asker, reason_of
from ray_app.engine.base import UnitResult, Work, alone
from ray_app.engine.supervisor import Lanes, Limits
from ray_app.errors import RunError

LIMITS = Limits(stall_s=0.4, silence_s=60.0, start_s=5.0, largest=64, local=True)
DEATH = ray.exceptions.RayActorError
NEVER = "never"


class Program:
    """Rows are `{"id"}`."""

    def unit_of(self, row: dict[str, Any]) -> str:
        return str(row["id"])

    async def __call__(self, *_: Any) -> UnitResult:
        raise NotImplementedError


LANES = Lanes((Work(Program(), "judgments", 1, "weights-2"),), None)


class Call:
    """A method of an actor's handle."""

    def __init__(self, method: Callable[..., Awaitable[Any]]) -> None:
        self.method = method

    def options(self, *, max_task_retries: int) -> Call:
        assert max_task_retries == 0, "Ray is not to ask rows again by itself"
        return self

    def remote(self, *arguments: Any) -> Any:
        return asyncio.ensure_future(self.method(*arguments))


class FakeEngine:
    """An engine's handle: what each row does to it is told by `does(engine, id)`."""

    def __init__(self, does: Callable[[FakeEngine, int], str | None], starts: list[str | None] | None = None) -> None:
        self.does, self.starts = does, starts or []
        self.alive, self.built, self.lives, self.asked_alone = True, True, 0, 0
        self.at_work, self.made, self.dead = 0, 0, asyncio.Event()
        self.weights: list[str] = []
        self.run, self.pulse, self.revive = Call(self._run), Call(self._pulse), Call(self._revive)

    async def _run(self, _: Any, rows: list[Any]) -> list[UnitResult]:
        if not self.built:
            raise DEATH
        life = self.dead
        self.at_work += len(rows)
        try:
            answers = [asyncio.ensure_future(self._one(row["id"])) for _, row in rows]
            ended = asyncio.ensure_future(life.wait())
            while not life.is_set() and not all(answer.done() for answer in answers):
                left = {answer for answer in answers if not answer.done()}
                await asyncio.wait({ended, *left}, return_when="FIRST_COMPLETED")
            if life.is_set():
                raise DEATH
            return [answer.result() for answer in answers]
        finally:
            self.at_work -= len(rows)

    async def _one(self, row: int) -> UnitResult:
        await asyncio.sleep(0)
        what = self.does(self, row)
        if what == "kills":
            self.end()
        if what in ("kills", NEVER):
            await asyncio.Event().wait()
        if what is not None:
            return faulty(str(row), "judgments", what, f"{what} of {row}")
        self.made += 1
        return UnitResult(str(row), rows=[{"id": row}])

    def end(self) -> None:
        self.built = False
        self.dead.set()

    async def _pulse(self) -> dict[str, Any]:
        return {"built": self.built, "made": (self.made, 0), "at_work": self.at_work, "pid": 1, "node": "n"}

    async def _revive(self, model: str) -> str | None:
        self.weights.append(model)
        fault = self.starts.pop(0) if self.starts else None
        if fault is None:
            self.built, self.dead, self.lives = True, asyncio.Event(), self.lives + 1
        return fault


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    async def ended(actor: FakeEngine, _: Any) -> None:
        actor.end()

    monkeypatch.setattr(supervisor, "end_process", ended)
    monkeypatch.setattr(supervisor.ray, "cancel", lambda call: call.cancel())
    monkeypatch.setattr(supervisor.ray, "kill", lambda _: None)
    monkeypatch.setattr(asking, "LOOK_EVERY_S", 0.001)
    monkeypatch.setattr(replicas, "PAUSES_S", (0.0, 0.0, 0.001, 0.001))
    monkeypatch.setattr(replicas, "REST_S", 0.01)
    monkeypatch.setattr(replicas, "LONGEST_REST_S", 0.02)


def answers(engines: list[FakeEngine], rows: int, limits: Limits = LIMITS, per_call: int = 4) -> list[UnitResult]:
    """What `rows` rows get that are asked in calls of `per_call`, all at once."""

    async def main() -> list[UnitResult]:
        asker = Asker(engines, "weights-2", limits)
        ids = [{"id": number} for number in range(rows)]
        try:
            parts = [asker.ask(LANES, alone(ids[start : start + per_call])) for start in range(0, rows, per_call)]
            return [unit for part in await asyncio.gather(*parts) for unit in part]
        finally:
            asker.close()

    units = asyncio.run(asyncio.wait_for(main(), 60))
    assert [unit.unit for unit in units] == [str(number) for number in range(rows)], "each once, and in order"
    return units


def reasons(units: list[UnitResult]) -> Counter[str | None]:
    return Counter(reason_of(unit) for unit in units)


def test_a_poison_row_is_quarantined_and_costs_no_other() -> None:
    engines = [FakeEngine(lambda _, row: "kills" if row == 41 else None) for _ in range(3)]
    units = answers(engines, 90)
    assert reasons(units) == {None: 89, "killed_engine": 1}
    assert reason_of(units[41]) == "killed_engine"
    assert "asked alone, the engine died" in units[41].quarantine[0]["detail"]
    assert sum(engine.lives for engine in engines) <= 5
    assert {model for engine in engines for model in engine.weights} == {"weights-2"}


def test_one_engine_alone_survives_its_poison_rows() -> None:
    engine = FakeEngine(lambda _, row: "kills" if row in (3, 17) else None)
    assert reasons(answers([engine], 40)) == {None: 38, "killed_engine": 2}


def test_poison_rows_that_come_last_are_all_found() -> None:
    """Both orders of a pair, and of its mirror: nothing else is left whose answer would show that the engine works."""
    engine = FakeEngine(lambda _, row: "kills" if row >= 4 else None)

    async def main() -> list[UnitResult]:
        asker = Asker([engine], "weights-2", LIMITS)
        await asker.ask(LANES, alone([{"id": number} for number in range(4)]))
        units = await asker.ask(LANES, alone([{"id": number} for number in range(4, 20)]))
        asker.close()
        return units

    assert reasons(asyncio.run(asyncio.wait_for(main(), 60))) == {"killed_engine": 16}


def test_poison_rows_that_alone_were_left_are_found() -> None:
    """By the attempt before, which was killed: nothing was answered in this one."""
    assert reasons(answers([FakeEngine(lambda *_: "kills")], 2)) == {"killed_engine": 2}


def test_an_engine_that_dies_once_loses_no_row() -> None:
    engine = FakeEngine(lambda engine, row: "kills" if row == 5 and engine.lives == 0 else None)
    assert reasons(answers([engine], 20)) == {None: 20}
    assert engine.lives == 1


def test_an_engine_that_stands_still_is_ended_and_its_rows_are_asked_elsewhere_first() -> None:
    stuck = FakeEngine(lambda engine, _: NEVER if engine.lives == 0 else None)
    other = FakeEngine(lambda *_: None)
    assert reasons(answers([stuck, other], 40)) == {None: 40}
    assert stuck.lives == 1


@pytest.mark.parametrize("looks", [0, 1], ids=["from the first", "once it was asked"])
def test_an_actor_that_says_nothing_any_more_is_ended_and_its_rows_are_asked_elsewhere(
    looks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its process hangs, or its node is cut off: no error comes, and no answer either."""
    monkeypatch.setattr(supervisor, "PING_LIMIT_S", 0.05)

    class Silent(FakeEngine):
        told = 0

        async def _pulse(self) -> dict[str, Any]:
            self.told += 1
            if self.lives == 0 and self.built and self.told > looks:
                await asyncio.Event().wait()
            return await super()._pulse()

    silent = Silent(lambda engine, _: NEVER if engine.lives == 0 else None)
    limits = dataclasses.replace(LIMITS, stall_s=60.0)  # its silence tells, not what it makes
    monkeypatch.setattr(supervisor, "PING_EVERY_S", 0.01)
    assert reasons(answers([silent, FakeEngine(lambda *_: None)], 40, limits)) == {None: 40}
    assert silent.lives == 1


def test_no_engine_that_stands_still_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its process takes longer to end than its rows take elsewhere."""
    stuck = FakeEngine(lambda engine, _: NEVER if engine.lives == 0 else None)
    other = FakeEngine(lambda *_: None)

    async def main() -> tuple[bool, bool]:
        may_end = asyncio.Event()

        async def slowly(actor: FakeEngine, _: Any) -> None:
            await may_end.wait()
            actor.end()

        monkeypatch.setattr(supervisor, "end_process", slowly)
        asker = Asker([stuck, other], "weights-2", LIMITS)
        try:
            calls = [asker.ask(LANES, alone([{"id": number}])) for number in range(8)]
            assert reasons([unit for part in await asyncio.gather(*calls) for unit in part]) == {None: 8}
            waiting = asyncio.ensure_future(asker.settled())
            for _ in range(50):
                await asyncio.sleep(0)
            early = waiting.done()
            may_end.set()
            await waiting
            return early, stuck.lives == 1 or not stuck.built
        finally:
            asker.close()

    assert asyncio.run(asyncio.wait_for(main(), 60)) == (False, True)


def test_a_row_that_makes_engines_stand_still_is_quarantined_as_timeout() -> None:
    engine = FakeEngine(lambda _, row: NEVER if row == 2 else None)
    units = answers([engine], 8, per_call=1)
    assert reasons(units) == {None: 7, "timeout": 1}
    assert reason_of(units[2]) == "timeout"


def test_a_replica_that_errs_fast_costs_no_row() -> None:
    """It is always the least loaded."""
    broken = FakeEngine(lambda *_: "engine_error")
    others = [FakeEngine(lambda *_: None) for _ in range(3)]
    assert reasons(answers([broken, *others], 2000)) == {None: 2000}


def test_a_row_that_failed_is_asked_of_another_engine_first() -> None:
    assert reasons(answers([FakeEngine(lambda *_: "engine_error"), FakeEngine(lambda *_: None)], 1)) == {None: 1}


def test_a_replica_that_errs_for_long_gets_a_new_process() -> None:
    broken = FakeEngine(lambda engine, _: "engine_error" if engine.lives == 0 else None)
    assert reasons(answers([broken, FakeEngine(lambda *_: None)], 30)) == {None: 30}

    async def main() -> int:
        engines = [
            FakeEngine(lambda engine, _: "engine_error" if engine.lives == 0 else None),
            FakeEngine(lambda *_: None),
        ]
        asker = Asker(engines, "weights-2", LIMITS)
        while engines[0].lives == 0:
            await asyncio.gather(*(asker.ask(LANES, alone([{"id": number}])) for number in range(20)))
        asker.close()
        return engines[0].lives

    assert asyncio.run(asyncio.wait_for(main(), 60)) == 1


def test_a_row_that_fails_everywhere_is_quarantined_though_it_comes_last() -> None:
    """As many in a row as make an engine rest: a row that was answered before shows that it works."""
    engines = [FakeEngine(lambda _, row: "engine_error" if row >= 10 else None) for _ in range(2)]
    units = answers(engines, 40, per_call=1)
    assert reasons(units) == {None: 10, "engine_error": 30}


def test_an_outage_between_answers_costs_no_row() -> None:
    """Of an endpoint, which no new process heals; each row is asked again when it answers."""
    state = {"asked": 0}

    def does(_: FakeEngine, row: int) -> str | None:
        state["asked"] += 1
        return "engine_error" if 20 < state["asked"] < 120 and row >= 20 else None

    async def main() -> list[UnitResult]:
        engine = FakeEngine(lambda engine, row: does(engine, row))
        asker = Asker([engine], "weights-2", dataclasses.replace(LIMITS, local=False))
        await asyncio.gather(*(asker.ask(LANES, alone([{"id": number}])) for number in range(20)))
        units = await asyncio.gather(*(asker.ask(LANES, alone([{"id": number}])) for number in range(20, 100)))
        asker.close()
        return [unit for (unit,) in units]

    units = asyncio.run(asyncio.wait_for(main(), 60))
    assert reasons(units)["engine_error"] <= replicas.BREAK_AFTER // asking.TRIES


def test_an_engine_that_answers_nothing_fails_at_once() -> None:
    assert reasons(answers([FakeEngine(lambda *_: "engine_error")], 60)) == {"engine_error": 60}


def test_a_start_that_fails_is_tried_again() -> None:
    engine = FakeEngine(
        lambda engine, row: "kills" if row == 5 and engine.lives == 0 else None, starts=["GPU is full", "GPU is full"]
    )
    assert reasons(answers([engine], 20)) == {None: 20}
    assert len(engine.weights) == 3


def test_engines_that_do_not_start_again_end_the_stage_with_their_cause() -> None:
    engine = FakeEngine(lambda _, row: "kills", starts=["the folder is gone"] * 9)
    with pytest.raises(RunError, match="every engine died, and did not come back: engine 0 did not start: the folder"):
        answers([engine], 8)


def test_an_engine_that_kills_itself_over_every_row_ends_the_stage_and_blames_none() -> None:
    engines = [FakeEngine(lambda *_: "kills") for _ in range(2)]
    with pytest.raises(RunError, match="every engine died"):
        answers(engines, 40)


def test_a_service_gives_no_engine_up() -> None:
    engine = FakeEngine(
        lambda engine, row: "kills" if engine.lives == 0 else None, starts=["no"] * 9
    )  # more often than a stage would try
    assert reasons(answers([engine], 8, dataclasses.replace(LIMITS, patient=True))) == {None: 8}


def test_an_engine_that_died_between_two_stages_is_built_first() -> None:
    engine = FakeEngine(lambda *_: None)
    engine.end()
    assert reasons(answers([engine], 8)) == {None: 8}
    assert engine.weights == ["weights-2"]


def test_engines_that_are_gone_are_left_out() -> None:
    class Gone(FakeEngine):
        async def _pulse(self) -> dict[str, Any]:
            raise ray.exceptions.ActorDiedError

        async def _run(self, *_: Any) -> list[UnitResult]:
            raise ray.exceptions.ActorDiedError

    assert reasons(answers([Gone(lambda *_: None), FakeEngine(lambda *_: None)], 20)) == {None: 20}
    with pytest.raises(RunError, match="every engine died"):
        answers([Gone(lambda *_: None)], 4)


def test_a_network_that_is_away_for_moments_convicts_nobody() -> None:
    """Three calls fail, and each time the same process answers then: nothing has died, and no row is lost."""

    class Flapping(FakeEngine):
        flaps = 3

        async def _run(self, sent: Any, rows: list[Any]) -> list[UnitResult]:
            if self.flaps:
                self.flaps -= 1
                raise ray.exceptions.ActorUnavailableError("the network is away", None)
            return await super()._run(sent, rows)

    assert reasons(answers([Flapping(lambda *_: None)], 1)) == {None: 1}


def test_an_engine_that_dies_each_time_convicts_its_row_all_the_same() -> None:
    """The mend above must not let a poison row go round for ever."""
    assert reasons(answers([FakeEngine(lambda _, row: "kills" if row == 0 else None)], 8)) == {
        None: 7,
        asking.KILLED: 1,
    }


def test_an_answer_that_is_lost_with_its_node_is_asked_for_again() -> None:
    class Losing(FakeEngine):
        lost = False

        async def _run(self, sent: Any, rows: list[Any]) -> list[UnitResult]:
            found = await super()._run(sent, rows)
            if not self.lost:
                self.lost = True
                raise ray.exceptions.ObjectReconstructionFailedError("00" * 28, None, "")
            return found

    assert reasons(answers([Losing(lambda *_: None), FakeEngine(lambda *_: None)], 12)) == {None: 12}


def test_a_process_that_ran_out_of_memory_has_died() -> None:
    class Full(FakeEngine):
        async def _run(self, sent: Any, rows: list[Any]) -> list[UnitResult]:
            if not self.lives:
                self.end()
                raise ray.exceptions.OutOfMemoryError("killed by the memory monitor")
            return await super()._run(sent, rows)

    engine = Full(lambda *_: None)
    assert reasons(answers([engine], 4)) == {None: 4}
    assert engine.lives == 1


def test_an_endpoint_that_is_slow_is_no_engine_that_stands_still() -> None:
    """Its tokens are not seen before an answer is whole: eight of these take longer than `stall_s`."""

    class Slow(FakeEngine):
        async def _one(self, row: int) -> UnitResult:
            await asyncio.sleep(3 * LIMITS.stall_s)
            return await super()._one(row)

    engine = Slow(lambda *_: None)
    assert reasons(answers([engine], 8, dataclasses.replace(LIMITS, local=False))) == {None: 8}
    assert engine.lives == 0, "it was not built anew"


def test_an_engine_without_a_place_says_so(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Its node is gone, and no other has room: until there is some, a run would wait without a word."""

    class Placeless(FakeEngine):
        async def _pulse(self) -> dict[str, Any]:
            if not self.built:
                while "has no process for" not in caplog.text:
                    await asyncio.sleep(0.01)
            return await super()._pulse()

    monkeypatch.setattr(supervisor, "TELL_AFTER_S", 0.05)
    monkeypatch.setattr(supervisor, "what_is_free", lambda: "0 GPUs and 1 CPUs are free on 1 node(s)")
    engine = Placeless(lambda engine, row: "kills" if engine.lives == 0 else None)
    assert reasons(answers([engine], 4)) == {None: 4}
    assert "engine 0 has no process for 0 s: 0 GPUs and 1 CPUs are free on 1 node(s)" in caplog.text


def test_who_gives_up_takes_his_rows_along() -> None:
    """A client of the service that hangs up, with a row that ends engines: it is not asked again for nobody."""

    async def main() -> tuple[int, int]:
        engine = FakeEngine(lambda _, row: "kills" if row == 0 else None)
        asker = Asker([engine], "weights-2", LIMITS)
        poison = asyncio.create_task(asker.ask(LANES, alone([{"id": 0}])))
        while engine.lives == 0:
            await asyncio.sleep(0.001)
        poison.cancel()
        units = await asker.ask(LANES, alone([{"id": 1}]))
        asker.close()
        return len(units[0].rows), engine.lives

    rows, lives = asyncio.run(asyncio.wait_for(main(), 60))
    assert rows == 1
    assert lives <= 2


def test_who_gives_up_lets_the_engine_go() -> None:
    """A client of the service that hangs up, or was answered 504: its request takes no engine's time any more."""

    async def main() -> list[int]:
        engine = FakeEngine(lambda *_: NEVER)
        asker = Asker([engine], "weights-2", LIMITS)
        waiting = asyncio.create_task(asker.ask(LANES, alone([{"id": 0}])))
        while not engine.at_work:
            await asyncio.sleep(0.001)
        waiting.cancel()
        while engine.at_work:
            await asyncio.sleep(0.001)
        asker.close()
        return asker.replicas.load

    assert asyncio.run(asyncio.wait_for(main(), 60)) == [0]


def test_pulses_tell_who_makes_something_of_what_it_is_asked() -> None:
    async def main() -> list[dict[str, Any] | None]:
        engines = [FakeEngine(lambda *_: NEVER), FakeEngine(lambda *_: None)]
        asker = Asker(engines, "weights-2", dataclasses.replace(LIMITS, stall_s=30.0))
        waiting = asyncio.create_task(asker.ask(LANES, alone([{"id": 0}])))
        while not engines[0].at_work:
            await asyncio.sleep(0.001)
        engines[1].end()
        told = await asker.engines.pulses(1.0)
        waiting.cancel()
        asker.close()
        return told

    stuck, ended = asyncio.run(asyncio.wait_for(main(), 60))
    assert stuck is not None
    assert stuck["quiet_s"] > 0
    assert ended is None
