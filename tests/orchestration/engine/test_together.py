"""Several tables as one stream: each holds what it would hold alone, and resumes alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from closed import closed_units

from ray_app.base.schema import JUDGMENTS
from ray_app.engine.manager import PoolManager
from ray_app.errors import RunError
from ray_app.generation.runner import Job, Runner
from ray_app.generation.together import run_together, shares
from ray_app.run.storage import list_files, read_parquet, write_parquet_atomic

pytestmark = pytest.mark.usefixtures("cluster")
Make = Callable[..., Any]
UNITS = ("pair_id", "order", "instruction", "first", "second", "gold")
LONG = " ".join(["word"] * 400)


@pytest.fixture
def runner() -> Iterator[Runner]:
    pools = PoolManager("t")
    yield Runner(pools)
    pools.close()


@pytest.fixture
def job(tmp_path: Path, units: Make, program: Make, scripted: Make, runner: Runner) -> Make:
    """A job over units in files, as the evaluation of one set has them; the columns of each differ a little."""

    def make(name: str, pairs: int, *, seed: int = 7, engine: Any = None, long: bool = False) -> Job:
        rows = [{**row, f"of_{name}": name} for row in units(pairs)]
        if long:
            rows = [{**row, "first": LONG} for row in rows]
        folder = tmp_path / name / "units"
        for start in range(0, len(rows), 8):
            write_parquet_atomic(pa.Table.from_pylist(rows[start : start + 8]), f"{folder}/shard-{start:05d}.parquet")
        return Job(
            stage="evaluation",
            directory=str(tmp_path / name),
            schema=JUDGMENTS,
            key=("pair_id", "order"),
            source=runner.dataset(str(folder)),
            total=len(rows),
            program=program(run_seed=seed),
            engine=engine or scripted({"p": [0.4]}, max_model_len=300),
            role="judge",
            units=str(folder),
        )

    return make


def rows_of(job: Job) -> list[dict[str, Any]]:
    rows = [row for file in list_files(job.directory, "shard-*.parquet") for row in read_parquet(file).to_pylist()]
    return sorted(rows, key=lambda row: (row["pair_id"], row["order"], row["sample"]))


@pytest.mark.long
def test_each_table_holds_what_it_would_hold_alone(runner: Runner, job: Make) -> None:
    alone = [job("alone_a", 12), job("alone_b", 3, seed=8)]
    wanted = [runner.run(one) for one in alone]
    together = [job("a", 12), job("b", 3, seed=8)]
    found = run_together(runner, together)
    assert [rows_of(one) for one in together] == [rows_of(one) for one in alone]
    for got, asked in zip(found, wanted, strict=True):
        names = ("rows_in", "rows_out", "quarantined", "prompt_tokens", "completion_tokens")
        assert [getattr(got, name) for name in names] == [getattr(asked, name) for name in names]
    assert [result.extra["weights"] for result in found] == ["reused", "reused"]


def test_what_is_done_is_not_asked_again(runner: Runner, job: Make, units: Make) -> None:
    jobs = [job("a", 4), job("b", 4), job("c", 4)]
    run_together(runner, jobs[:2])
    before = [rows_of(one) for one in jobs[:2]]
    for file in list_files(jobs[1].directory, "shard-*.parquet"):  # as an interrupted attempt would have left it
        table = read_parquet(file)
        write_parquet_atomic(table.filter(pa.compute.equal(table["pair_id"], "p000001")), file)
    found = run_together(runner, jobs)
    assert [result.extra["resumed_units"] for result in found] == [8, 2, 0]
    assert [rows_of(one) for one in jobs[:2]] == before
    assert len(closed_units(jobs[2].directory, jobs[2].key)) == len(units(4))


def test_a_table_whose_rows_all_fail_on_their_own_costs_the_others_nothing(runner: Runner, job: Make) -> None:
    jobs = [job("a", 4), job("long", 2, long=True)]
    found = run_together(runner, jobs)
    assert found[0].quarantined == {}
    assert found[1].quarantined == {"prompt_too_long": 4}
    assert list_files(jobs[1].directory, "quarantine-*.parquet")


def test_an_engine_that_answers_nothing_is_no_fault_of_any_row(runner: Runner, job: Make, scripted: Make) -> None:
    broken = scripted({"fail": 1.0})
    jobs = [job("a", 4, engine=broken), job("b", 4, engine=broken)]
    with pytest.raises(RunError, match="scripted failure"):
        run_together(runner, jobs)
    assert not any(list_files(one.directory, "quarantine-*.parquet") for one in jobs)


def test_what_failed_in_an_engine_is_asked_again_by_the_next_attempt(runner: Runner, job: Make, scripted: Make) -> None:
    """Every unit is in a closed shard or quarantined after the first attempt: what is not taken out of the quarantine
    would never be asked again.
    """
    broken = scripted({"p": [0.4], "fail": 0.1}, max_model_len=300)
    jobs = [job("a", 8, engine=broken), job("b", 8, seed=8, engine=broken)]
    lost = [result.quarantined["engine_error"] for result in run_together(runner, jobs)]
    before = [rows_of(one) for one in jobs]
    assert all(0 < many < 16 for many in lost)
    assert [len(closed_units(one.directory, one.key)) for one in jobs] == [16, 16]
    jobs = [job("a", 8), job("b", 8, seed=8)]
    found = run_together(runner, jobs)
    assert [result.quarantined for result in found] == [{}, {}]
    assert [result.extra["resumed_units"] for result in found] == [16 - many for many in lost]
    for one, kept in zip(jobs, before, strict=True):
        after = rows_of(one)
        assert len({(row["pair_id"], row["order"]) for row in after}) == 16
        assert all(row in after for row in kept), "what was answered is not asked again"


def test_seconds_are_shared_by_units() -> None:
    assert shares([30, 10], 8.0) == [6.0, 2.0]
