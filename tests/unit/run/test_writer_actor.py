"""The writer as an actor: units come once, errors are not lost, the timer closes shards."""

from __future__ import annotations

import asyncio
import errno
from pathlib import Path

import pytest
from closed import closed_units
from finished_units import SCHEMA, quarantined, result

from ray_app.engine.base import UnitResult
from ray_app.errors import RunError
from ray_app.run import lease as lease_module
from ray_app.run import shards
from ray_app.run.lease import Lease
from ray_app.run.shards import row_counts
from ray_app.run.writer_actor import Table, TableWriter, _WriterActor


def test_rows_quarantine_and_counters_arrive(tmp_path: Path) -> None:
    async def work() -> tuple[dict[str, float], dict[str, float]]:
        actor = TableWriter(str(tmp_path), SCHEMA, None)
        await actor.add([result("a", 2), quarantined("b")])
        await actor.add([result("c")])
        return await actor.progress(), await actor.finish()

    progress, counters = asyncio.run(work())
    assert progress == {"units": 3, "completion_tokens": 20}
    assert counters == {"completion_tokens": 20, "samples": 2}
    assert row_counts(str(tmp_path)) == (3, {"empty": 1})
    assert closed_units(str(tmp_path), ["id"]) == {"a", "b", "c"}


def test_a_unit_that_a_restarted_client_brings_again_is_not_doubled(tmp_path: Path) -> None:
    async def work() -> dict[str, float]:
        actor = TableWriter(str(tmp_path), SCHEMA, None)
        for units in ([result("a"), quarantined("q")], [result("a"), quarantined("q"), result("b")]):
            await actor.add(units)
        return await actor.finish()

    assert asyncio.run(work())["samples"] == 2
    assert row_counts(str(tmp_path)) == (2, {"empty": 1})


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (UnitResult("x", rows=[{"id": "x"}]), "misses column 'value'"),
        (UnitResult("x", rows=result("x").rows, quarantine=quarantined("x").quarantine), "'x' has rows and is quarant"),
    ],
)
def test_an_error_is_raised_by_every_later_call(tmp_path: Path, bad: UnitResult, words: str) -> None:
    async def work() -> None:
        actor = TableWriter(str(tmp_path), SCHEMA, None)
        for call in (
            lambda: actor.add([bad]),
            lambda: actor.add([bad]),
            lambda: actor.add([result("a")]),
            actor.finish,
        ):
            with pytest.raises(ValueError, match=words):
                await call()

    asyncio.run(work())


def test_the_timer_closes_an_old_shard_by_itself(tmp_path: Path) -> None:
    async def work() -> None:
        actor = TableWriter(str(tmp_path), SCHEMA, None)
        actor.writer.clock = lambda: 0.0
        await actor.add([result("a")])
        assert closed_units(str(tmp_path), ["id"]) == set()
        actor.writer.clock = lambda: 30.0
        while not closed_units(str(tmp_path), ["id"]):
            await asyncio.sleep(0.05)
        await actor.finish()

    asyncio.run(asyncio.wait_for(work(), 60))


def test_a_fault_of_the_timer_reaches_the_next_call(tmp_path: Path) -> None:
    async def work() -> None:
        with Lease(str(tmp_path)) as lease:
            actor = TableWriter(str(tmp_path / "stage"), SCHEMA, lease.fence)
            actor.writer.clock = lambda: 0.0
            await actor.add([result("a")])
            lease_module.storage.write_json_atomic(lease.uri, {"owner": "other", "pid": 1, "host": "elsewhere"})
            actor.writer.clock = lambda: 1e9
            while actor.fault is None:
                await asyncio.sleep(0.05)
            with pytest.raises(RunError, match=r"another driver took over.*elsewhere"):
                await actor.add([result("b")])
            with pytest.raises(RunError, match="another driver took over"):
                await actor.finish()

    asyncio.run(asyncio.wait_for(work(), 60))
    assert closed_units(str(tmp_path / "stage"), ["id"]) == set()


def test_settled_waits_for_the_shard_of_what_came_before(tmp_path: Path) -> None:
    async def work() -> None:
        actor = TableWriter(str(tmp_path), SCHEMA, None, max_rows=2)
        await actor.settled()  # nothing is open
        await actor.add([result("a")])
        waiting = asyncio.create_task(actor.settled())
        await asyncio.sleep(0)
        assert not waiting.done()
        await actor.add([result("b", 2)])  # does not fit into the shard of `a`, fills the next
        await waiting
        assert closed_units(str(tmp_path), ["id"]) == {"a", "b"}
        await actor.add([result("c"), quarantined("q")])
        others = asyncio.create_task(actor.settled())
        await asyncio.sleep(0)
        await actor.settled(close=True)
        await others
        assert closed_units(str(tmp_path), ["id"]) == {"a", "b", "c", "q"}

    asyncio.run(asyncio.wait_for(work(), 60))


def test_the_timer_wakes_those_who_wait(tmp_path: Path) -> None:
    async def work() -> None:
        actor = TableWriter(str(tmp_path), SCHEMA, None, max_seconds=0.5)
        await actor.add([result("a")])
        await actor.settled()

    asyncio.run(asyncio.wait_for(work(), 60))
    assert closed_units(str(tmp_path), ["id"]) == {"a"}


def test_those_who_wait_hear_of_a_fault(tmp_path: Path) -> None:
    async def work() -> None:
        actor = TableWriter(str(tmp_path), SCHEMA, None)
        await actor.add([result("a")])
        waiting = asyncio.create_task(actor.settled())
        await asyncio.sleep(0)
        with pytest.raises(ValueError, match="misses column"):
            await actor.add([UnitResult("x", rows=[{"id": "x"}])])
        with pytest.raises(ValueError, match="misses column"):
            await waiting

    asyncio.run(asyncio.wait_for(work(), 60))


def test_held_units_are_those_that_did_not_come_since(tmp_path: Path) -> None:
    async def work() -> list[str]:
        actor = _WriterActor([Table(str(tmp_path), SCHEMA)], None, 100, 60.0)
        await actor.add([(0, result("late"))])
        await actor.hold([(0, quarantined("late")), (0, quarantined("a")), (0, quarantined("b"))])
        await actor.add([(0, quarantined("a"))])
        found = [unit.unit for _, unit in await actor.unanswered()]
        await actor.finish()
        return found

    assert asyncio.run(work()) == ["b"]
    assert row_counts(str(tmp_path)) == (1, {"empty": 1})


BAD = UnitResult("x", rows=[{"id": "x"}])


def test_what_came_before_a_unit_that_does_not_fit_is_closed(tmp_path: Path) -> None:
    async def work() -> None:
        actor = TableWriter(str(tmp_path), SCHEMA, None)
        await actor.add([result("a"), quarantined("q")])
        with pytest.raises(ValueError, match="misses column"):
            await actor.add([BAD])
        with pytest.raises(ValueError, match="misses column"):
            await actor.finish()

    asyncio.run(work())
    assert closed_units(str(tmp_path), ["id"]) == {"a", "q"}


def test_an_error_of_one_lane_costs_no_other_its_rows(tmp_path: Path) -> None:
    tables = [Table(str(tmp_path / name), SCHEMA) for name in ("first", "second", "third")]

    async def work() -> None:
        actor = _WriterActor(tables, None, 100, 60.0)
        await actor.add([(lane, result(f"{lane}")) for lane in range(3)])
        with pytest.raises(ValueError, match="misses column"):
            await actor.add([(0, BAD), (1, result("with it"))])
        with pytest.raises(ValueError, match="misses column"):
            await actor.finish()

    asyncio.run(work())
    assert [closed_units(table.directory, ["id"]) for table in tables] == [{"0"}, {"1", "with it"}, {"2"}]


def test_a_shard_that_cannot_be_written_keeps_no_other_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk fails for as long as the first lane's rows are tried, and is there again for all that follow."""
    tables = [Table(str(tmp_path / name), SCHEMA) for name in ("first", "second")]
    create = shards.create_bytes

    def fails(uri: str, data: bytes) -> None:
        if "first/shard" in uri:
            raise OSError(errno.EIO, "Input/output error")
        create(uri, data)

    async def work() -> None:
        actor = _WriterActor(tables, None, 100, 60.0)
        await actor.add([(0, result("a")), (0, quarantined("q")), (1, result("b"))])
        with monkeypatch.context() as disk:
            disk.setattr(shards, "create_bytes", fails)
            with pytest.raises(OSError, match="Input/output error"):
                await actor.finish()
        assert [closed_units(table.directory, ["id"]) for table in tables] == [{"q"}, {"b"}]
        await actor.finish()  # as a stage that fails does once more

    asyncio.run(work())
    assert [closed_units(table.directory, ["id"]) for table in tables] == [{"a", "q"}, {"b"}]


def test_each_lane_has_its_table_and_its_counts(tmp_path: Path) -> None:
    tables = [Table(str(tmp_path / name), SCHEMA) for name in ("first", "second")]

    async def work() -> tuple[dict[str, float], list[bool], list[dict[str, float]]]:
        actor = _WriterActor(tables, None, 100, 60.0)
        await actor.add([(1, result("a", 2)), (0, quarantined("b")), (1, quarantined("c"))])
        return await actor.progress(), await actor.answered(), await actor.finish()

    progress, answered, counters = asyncio.run(work())
    assert progress["units"] == 3
    assert answered == [False, True]
    assert [counts.get("samples", 0) for counts in counters] == [0, 1]
    assert [row_counts(table.directory) for table in tables] == [(0, {"empty": 1}), (2, {"empty": 1})]
