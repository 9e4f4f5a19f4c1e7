"""Pairs that stream into judging on a local Ray: at the same time, durable before they are judged, resumed by row."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import ray
import yaml
from faulting import CLIENT, WRITER, newest_child
from loop_runs import base_settings, merged, scripted
from toy_tokenizers import PLAIN, make

from ray_app.base.schema import CHOSEN_FIRST, HELDOUT, INSTRUCTIONS, REJECTED_FIRST, TRAIN
from ray_app.command.load_settings import load_settings
from ray_app.engine.base import Engine, EngineError, UnitResult
from ray_app.engine.manager import PoolManager
from ray_app.errors import RunError
from ray_app.generation import side_by_side as streaming
from ray_app.generation.programs.pair import PairProgram
from ray_app.generation.runner import Runner
from ray_app.loop.config import IterateSettings
from ray_app.loop.stages.context import Context
from ray_app.loop.stages.inputs import Inputs
from ray_app.loop.steps import judging_engine, streamed
from ray_app.run.folder import RunFolder
from ray_app.run.shards import ShardWriter, column_values, row_counts
from ray_app.run.storage import list_files, read_parquet, write_parquet_atomic
from ray_app.train.trainable import Trainer

pytestmark = pytest.mark.usefixtures("cluster")
GENERATOR = scripted("generator", delay_s=0.05)
JUDGE = scripted("judge", p=[0.9, 0.4], delay_s=0.02)


@dataclass
class Run:
    """A run whose instructions are made; its pairs and first judgments are made and read here."""

    context: Context

    def __call__(self) -> Any:
        settings, folder = self.context.settings, self.context.folder
        judge = self.context.inputs.judge(judging_engine(settings, folder, 1), "judge")
        return streamed(self.context, 1, judge)

    @property
    def pairs(self) -> Path:
        return Path(self.context.folder.stage_dir("pairs"))

    @property
    def judgments(self) -> Path:
        return Path(self.context.folder.stage_dir("judgments", 1))


def table(directory: Path) -> list[dict[str, Any]]:
    rows = [row for file in list_files(str(directory), "shard-*.parquet") for row in read_parquet(file).to_pylist()]
    return sorted(rows, key=lambda row: tuple(str(row.get(key)) for key in ("pair_id", "order", "side", "sample")))


@contextlib.contextmanager
def maker(tmp_path: Path) -> Iterator[Callable[..., Run]]:
    """Makes runs of `count` instructions, every fifth held out. Their pools close at the end."""
    pools = []

    def make(count: int = 40, name: str = "run", max_seconds: float = 1.0, **more: Any) -> Run:
        given = {"name": name, "iterations": 1, "shards": {"max_rows": 8, "max_seconds": max_seconds}}
        config = tmp_path / f"{name}.yaml"
        base = merged(base_settings(tmp_path), {"generator": GENERATOR, "judge": JUDGE, **given})
        config.write_text(yaml.safe_dump(merged(base, more)))
        settings = load_settings(IterateSettings, ["--config", str(config)])
        pools.append(PoolManager("t"))
        folder = RunFolder(settings.run_uri)
        with ShardWriter(folder.stage_dir("instructions"), INSTRUCTIONS, max_rows=32) as writer:
            for number in range(count):
                row = {column: None for column in INSTRUCTIONS.names}
                split = HELDOUT if number % 5 == 4 else TRAIN
                writer.add([{**row, "instruction_id": f"i{number:04d}", "text": f"Question {number}?", "split": split}])
        return Run(Context(settings, folder, Runner(pools[-1], None, settings.shards), Inputs(settings)))

    yield make
    for manager in pools:
        manager.close()


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Callable[..., Run]]:
    with maker(tmp_path) as make:
        yield make


@pytest.fixture(scope="module")
def undisturbed(cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of 40 instructions whose pairs were made and judged side by side."""
    with maker(tmp_path_factory.mktemp("undisturbed")) as make:
        made = make()
        made()
    return made


def whole(run: Run, count: int) -> None:
    """Every instruction has its pair, every training pair its judgments in both orders, and nothing has more."""
    pairs, judgments = table(run.pairs), table(run.judgments)
    assert Counter(pair["instruction_id"] for pair in pairs) == Counter(f"i{n:04d}" for n in range(count))
    units = {(p["pair_id"], order) for p in pairs if p["split"] == TRAIN for order in (CHOSEN_FIRST, REJECTED_FIRST)}
    assert {(row["pair_id"], row["order"]) for row in judgments} == units
    keys = [(row["pair_id"], row["order"], row["sample"]) for row in judgments]
    assert len(keys) == len(set(keys))


class Gate:
    """Makes pairs like `program`, but the last one only after a judgment is in a closed shard."""

    def __init__(self, program: PairProgram, last: str, judgments: str) -> None:
        self.program, self.last, self.judgments = program, last, judgments

    def unit_of(self, row: dict[str, Any]) -> str:
        return self.program.unit_of(row)

    async def __call__(self, engine: Engine, row: dict[str, Any]) -> UnitResult:
        while row["instruction_id"] == self.last and not list_files(self.judgments, "shard-*.parquet"):
            await asyncio.sleep(0.1)
        return await self.program(engine, row)


@pytest.fixture
def with_programs(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], None]:
    """Has the jobs of a stream changed before it starts; their programs may be classes of this file."""
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    real = streaming.stream

    def change(change_jobs: Any) -> None:
        def changed(runner: Any, first: Any, second: Any, **more: Any) -> Any:
            return real(runner, *change_jobs(first, second), **more)

        monkeypatch.setattr("ray_app.loop.steps.stream", changed)

    return change


def gated(first: Any, second: Any) -> Any:
    return replace(first, program=Gate(first.program, "i0038", second.directory)), second


def test_judging_begins_before_the_last_pair_is_made(
    run: Any, with_programs: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Or it would wait for ever."""
    caplog.set_level(logging.INFO)
    with_programs(gated)
    made = run()
    pairs, judgments = made()
    whole(made, 40)
    assert judgments.extra["overlap_seconds"] > 0
    assert (pairs.rows_in, pairs.rows_out, judgments.rows_in) == (40, 40, 64)
    assert judgments.rows_out == judgments.extra["samples"] == len(table(made.judgments))
    assert judgments.extra["side_by_side"] is pairs.extra["side_by_side"] is True
    assert (pairs.extra["weights"], judgments.extra["weights"]) == ("started", "started")
    assert pairs.seconds < judgments.seconds
    said = "pairs and iteration 1: judgments run side by side: 0 GPUs and 4 CPUs are enough for generator and judge"
    assert said in caplog.messages


@pytest.mark.long
def test_one_pool_serves_both(run: Any, with_programs: Any) -> None:
    with_programs(gated)
    made = run(generator=JUDGE)
    pairs, judgments = made()
    whole(made, 40)
    assert len(made.context.runner.pools.pools) == 1
    assert (pairs.extra["weights"], judgments.extra["weights"]) == ("started", "reused")
    assert judgments.extra["overlap_seconds"] > 0


@pytest.mark.long
def test_the_tables_are_those_of_one_stage_after_the_other(run: Any, undisturbed: Run) -> None:
    apart = run(name="apart")
    apart.context.runner.run(jobs(apart)[0])
    apart.context.runner.run(jobs(apart)[1])
    assert table(undisturbed.pairs) == table(apart.pairs)
    assert table(undisturbed.judgments) == table(apart.judgments)


def jobs(made: Run) -> list[Any]:
    from ray_app.loop.stages import judgments, pairs

    engine = judging_engine(made.context.settings, made.context.folder, 1)
    judge = made.context.inputs.judge(engine, "judge")
    return [pairs.job(made.context, None), judgments.job(made.context, 1, judge, 64)]


@pytest.mark.long
def test_responses_are_scored_while_pairs_are_made(run: Any) -> None:
    made = run(judging={"mode": "pointwise"})
    pairs, scores = made()
    training = [pair["pair_id"] for pair in table(made.pairs) if pair["split"] == TRAIN]
    assert {row["pair_id"] for row in table(made.judgments)} == set(training)
    assert (pairs.rows_out, scores.rows_in) == (40, 32)


@pytest.mark.matrix
@pytest.mark.parametrize("helper", [CLIENT, WRITER])
def test_a_helper_that_dies_costs_no_row_of_either_table(
    run: Any, with_programs: Any, undisturbed: Run, helper: str
) -> None:
    """The last pair waits for a judgment, so that it dies amidst both."""
    with_programs(gated)
    made, killed = run(name="helper"), []

    def kill() -> None:
        while not list_files(str(made.pairs), "shard-*.parquet"):
            time.sleep(0.05)
        newest_child(helper).kill()
        killed.append(helper)

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    pairs, judgments = made()
    killer.join()
    assert killed
    whole(made, 40)
    assert table(made.pairs) == table(undisturbed.pairs)
    assert table(made.judgments) == table(undisturbed.judgments)
    assert (pairs.rows_out, judgments.rows_in) == (40, 64)


class FailsOn:
    """Asks like `program`, but engines fail on the rows that have `value` in `column`."""

    def __init__(self, program: Any, column: str, value: str) -> None:
        self.program, self.column, self.value, self.unit_of = program, column, value, program.unit_of

    async def __call__(self, engine: Engine, row: dict[str, Any]) -> UnitResult:
        if row[self.column] == self.value:
            raise EngineError("out of order")
        result: UnitResult = await self.program(engine, row)
        return result


def test_what_failed_in_an_engine_is_asked_again_by_the_next_attempt_of_both(
    run: Any, with_programs: Any, undisturbed: Run
) -> None:
    """One pair, and the judgments of another; the attempt ends before its last shard of pairs is closed."""
    made, attempts = run(name="errors"), list[int]()

    def failing(first: Any, second: Any) -> Any:
        attempts.append(1)
        if len(attempts) > 1:
            return first, second
        pairs = FailsOn(first.program, "instruction_id", "i0003")
        return replace(first, program=pairs), replace(
            second, program=FailsOn(second.program, "instruction", "Question 5?")
        )

    with_programs(failing)
    pairs, judgments = made()
    assert (pairs.quarantined, judgments.quarantined) == ({"engine_error": 1}, {"engine_error": 2})
    without_the_last_pairs(made)
    pairs, judgments = made()
    assert len(attempts) == 2, "both streamed"
    assert (pairs.quarantined, judgments.quarantined) == ({}, {})
    whole(made, 40)
    assert table(made.pairs) == table(undisturbed.pairs)
    assert table(made.judgments) == table(undisturbed.judgments)


def without_the_last_pairs(made: Run) -> None:
    """Take the last shard of pairs away, and what was judged of them."""
    Path(list_files(str(made.pairs), "shard-*.parquet")[-1]).unlink()
    known = pa.array(sorted(column_values(str(made.pairs), "pair_id")))
    for file in list_files(str(made.judgments), "shard-*.parquet"):
        judged = read_parquet(file)
        write_parquet_atomic(judged.filter(pa.compute.is_in(judged["pair_id"], known)), file)


@pytest.mark.parametrize(
    ("pair_shards", "judged"), [(2, 0), *(pytest.param(*one, marks=pytest.mark.matrix) for one in ((3, 1), (4, 99)))]
)
def test_resume_at_any_point_gives_the_undisturbed_tables(
    run: Any, undisturbed: Run, pair_shards: int, judged: int
) -> None:
    """What a killed run left: some closed shards of pairs, and of judgments of them."""
    killed = run(name="killed")
    kept = left_behind(undisturbed, killed, pair_shards, judged)
    pairs, judgments = killed()
    assert {file: file.read_bytes() for file in kept} == kept
    whole(killed, 40)
    assert table(killed.pairs) == table(undisturbed.pairs)
    assert table(killed.judgments) == table(undisturbed.judgments)
    assert pairs.extra["resumed_units"] == 8 * pair_shards
    assert (judgments.extra["resumed_units"] > 0) is (judged > 0)


def left_behind(whole_run: Run, killed: Run, pair_shards: int, judged: int) -> dict[Path, bytes]:
    """Copy `pair_shards` shards of pairs, and up to `judged` of the judgment shards that speak of no other pair."""
    copied: dict[Path, bytes] = {}
    rows = sorted(table(whole_run.pairs), key=lambda row: str(row["instruction_id"]))
    killed.pairs.mkdir(parents=True)
    with ShardWriter(str(killed.pairs), read_parquet(list_files(str(whole_run.pairs), "shard-*.parquet")[0]).schema,
                     max_rows=8) as writer:  # fmt: skip
        for row in rows[: 8 * pair_shards]:
            writer.add([row])
    known = set(column_values(str(killed.pairs), "pair_id"))
    killed.judgments.mkdir(parents=True)
    units: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in table(whole_run.judgments):
        if row["pair_id"] in known:
            units.setdefault((row["pair_id"], row["order"]), []).append(row)
    schema = read_parquet(list_files(str(whole_run.judgments), "shard-*.parquet")[0]).schema
    with ShardWriter(str(killed.judgments), schema, max_rows=16) as writer:
        for number, unit in enumerate(units.values()):
            if number < 7 * judged:
                writer.add(unit)
    for file in [*killed.pairs.glob("*.parquet"), *killed.judgments.glob("*.parquet")]:
        copied[file] = file.read_bytes()
    return copied


def test_pairs_that_are_all_made_are_judged_from_their_table(run: Any, undisturbed: Run) -> None:
    made = run()
    left_behind(undisturbed, made, pair_shards=5, judged=0)
    assert made() is None


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"pools": {"side_by_side": "never"}}, "pools.side_by_side is never"),
        ({"judge": {"cpus": 3}}, "0 GPUs and 4 CPUs are too few for generator and judge"),
    ],
)
def test_one_after_the_other_says_why(run: Any, caplog: pytest.LogCaptureFixture, more: Any, why: str) -> None:
    caplog.set_level(logging.INFO)
    made = run(**more)
    assert made() is None
    assert f"pairs and iteration 1: judgments run one after the other: {why}" in caplog.messages
    assert made.context.runner.pools.pools == []


@pytest.mark.matrix
@pytest.mark.parametrize("count", [6, 200])
def test_a_generator_that_never_answers_stops_the_run_and_blames_no_row(run: Any, count: int) -> None:
    made = run(count, generator={"script": {"fail": 1.0}})
    with pytest.raises(RunError, match="scripted failure"):
        made()
    assert row_counts(str(made.pairs)) == (0, {})


@pytest.mark.matrix
def test_instructions_that_fail_on_their_own_are_quarantined(run: Any) -> None:
    made = run(60, generator={"script": {"fail": 0.05, "delay_s": 0}})
    pairs, judgments = made()
    lost = pairs.quarantined["engine_error"]
    assert 0 < lost < 40
    assert pairs.rows_out == 60 - lost
    assert judgments.rows_in == 2 * sum(pair["split"] == TRAIN for pair in table(made.pairs))


@pytest.mark.long
def test_a_slow_judge_beside_engines_that_take_all_cpus(run: Any) -> None:
    """Nothing between the two stages may wait for a CPU that the engines never give back."""
    fast, slow = {"cpus": 1.25, "script": {"delay_s": 0}}, {"cpus": 1.25, "max_num_seqs": 8, "script": {"delay_s": 0.1}}
    made = run(200, generator=fast, judge=slow)
    made()
    whole(made, 200)


@pytest.mark.long
def test_the_order_of_a_training_set_is_kept_in_its_own_graph_alone(
    undisturbed: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A graph that keeps its order lets a slow block hold back those behind it; the next iteration's must not."""
    from ray_app.loop.stages import joining, train_set

    make(PLAIN).save_pretrained(tmp_path)  # the seed's, which rows are encoded with before they are balanced
    monkeypatch.setattr(train_set, "trainer_of", lambda _: Trainer(str(tmp_path), None, 4096))
    options = ray.data.DataContext.get_current().execution_options
    assert options.preserve_order is False
    directory = undisturbed.context.folder.stage_dir("train_set", 1)
    train_set.run(undisturbed.context, 1)
    in_place = rows_of(directory)
    monkeypatch.setattr(joining, "IN_PLACE", 0)
    train_set.run(undisturbed.context, 1)
    assert len(in_place) > 1
    assert rows_of(directory) == in_place
    assert ray.data.DataContext.get_current().execution_options.preserve_order is False


def rows_of(directory: str) -> list[dict[str, Any]]:
    return [row for file in list_files(directory, "shard-*.parquet") for row in read_parquet(file).to_pylist()]
