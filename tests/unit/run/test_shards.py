"""Rows become durable in whole shards; a crash loses at most what was in no closed shard, and nothing is doubled."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from closed import closed_units
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from ray_app.base.schema import QUARANTINE, unit_id
from ray_app.errors import InputError, RunError
from ray_app.run import shards, storage
from ray_app.run.shards import ShardWriter, column_values, owner_of, row_counts, shard_files

SCHEMA = pa.schema([("pair_id", pa.string()), ("order", pa.string()), ("sample", pa.int32()), ("tokens", pa.int32())])
KEY = ("pair_id", "order")


class Clock:
    """Seconds that only the test moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def unit(name: str, rows: int) -> list[dict[str, Any]]:
    return [{"pair_id": name, "order": "ab", "sample": i, "tokens": i} for i in range(rows)]


def fault(name: str, reason: str = "empty") -> dict[str, str]:
    return {"id": f"{name}:ab", "stage": "judgments", "reason": reason, "detail": ""}


def contents(directory: str) -> list[list[str]]:
    """Unit names of the rows, shard by shard."""
    return [storage.read_parquet(f).column("pair_id").to_pylist() for f in shard_files(directory)]


def test_a_shard_closes_before_it_would_exceed_its_rows_and_no_unit_is_split(place: str) -> None:
    with ShardWriter(place, SCHEMA, max_rows=5) as writer:
        for name, rows in (("a", 2), ("b", 2), ("c", 3), ("d", 2), ("big", 7), ("e", 1)):
            writer.add(unit(name, rows))
    assert [Counter(shard) for shard in contents(place)] == [
        {"a": 2, "b": 2},
        {"c": 3, "d": 2},
        {"big": 7},
        {"e": 1},
    ]
    assert [f.rsplit("/", 1)[-1] for f in shard_files(place)] == [f"shard-0000{i}.parquet" for i in range(4)]
    assert storage.read_parquet(shard_files(place)[0]).schema == SCHEMA


def test_nothing_is_visible_before_a_shard_closes(place: str) -> None:
    writer = ShardWriter(place, SCHEMA)
    writer.add(unit("a", 2))
    writer.quarantine([fault("b")])
    assert closed_units(place, KEY) == set()
    writer.close()
    assert closed_units(place, KEY) == {"a:ab", "b:ab"}


def test_the_time_rule_counts_from_the_first_row_of_each_shard(place: str) -> None:
    clock = Clock()
    writer = ShardWriter(place, SCHEMA, max_seconds=30, clock=clock)
    clock.now = 100
    writer.tick()
    writer.add(unit("a", 1))
    clock.now = 120
    writer.quarantine([fault("q")])
    clock.now = 129.9
    writer.tick()
    assert closed_units(place, KEY) == set()
    clock.now = 130
    writer.add(unit("b", 1))  # a busy writer needs no tick
    assert closed_units(place, KEY) == {"a:ab", "b:ab"}
    clock.now = 149
    writer.add(unit("c", 1))
    writer.tick()
    assert closed_units(place, KEY) == {"a:ab", "b:ab"}
    clock.now = 150
    writer.tick()
    assert closed_units(place, KEY) == {"a:ab", "b:ab", "q:ab"}


def test_numbers_go_on_after_the_highest(place: str) -> None:
    for name in ("a", "b"):
        with ShardWriter(place, SCHEMA) as writer:
            writer.add(unit(name, 1))
    storage.remove(shard_files(place)[0])
    with ShardWriter(place, SCHEMA) as writer:
        writer.add(unit("c", 1))
    assert [f.rsplit("/", 1)[-1] for f in shard_files(place)] == ["shard-00001.parquet", "shard-00002.parquet"]
    assert contents(place) == [["b"], ["c"]]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda row: row.pop("order"), "misses column 'order'"),
        (lambda row: row.update(score=1), "unknown column 'score'"),
        (lambda row: row.update(tokens="many"), "does not fit its schema.*many"),
        (lambda row: row.update(order="\ud800"), "does not fit its schema"),
    ],
)
def test_a_bad_row_is_named_and_costs_no_other(place: str, change, words: str) -> None:
    writer = ShardWriter(place, SCHEMA)
    writer.add(unit("good", 2))
    bad = unit("bad", 2)
    change(bad[1])
    with pytest.raises(ValueError, match=f"pair_id 'bad'.*{words}"):
        writer.add(bad)
    writer.close()
    assert contents(place) == [["good", "good"]]


def test_an_error_in_the_block_leaves_only_what_was_closed(place: str) -> None:
    with contextlib.suppress(ZeroDivisionError), ShardWriter(place, SCHEMA, max_rows=1) as writer:
        writer.add(unit("a", 1))  # full: closed
        writer.shards.max_rows = 2
        writer.add(unit("b", 1))
        raise ZeroDivisionError
    assert contents(place) == [["a"]]


def test_a_driver_that_lost_the_run_closes_no_shard(place: str) -> None:
    def lost() -> None:
        raise RunError("another driver took over")

    writer = ShardWriter(place, SCHEMA, fence=lost)
    writer.add(unit("a", 1))
    with pytest.raises(RunError, match="took over"):
        writer.close()
    assert storage.list_files(place) == []


class Standstill(ShardWriter):
    """The writer of a driver that stands still after its fence has let it through; `meanwhile` happens before it
    writes.
    """

    def __init__(self, place: str, meanwhile: Callable[[], None]) -> None:
        self.lost = False
        super().__init__(place, SCHEMA, fence=self.check, owner="old")
        self.meanwhile = meanwhile

    def check(self) -> None:
        if self.lost:
            raise RunError("another driver took over")
        self.lost = True  # by the time it wakes
        self.meanwhile()


def written_by(owner: str, place: str, *names: str) -> None:
    with ShardWriter(place, SCHEMA, owner=owner) as writer:
        for name in names:
            writer.add(unit(name, 1))
            writer.quarantine([fault(f"q{name}")])


def test_a_driver_that_wakes_too_late_replaces_no_shard_of_the_new_one(place: str) -> None:
    """It passed its fence, stood still for a minute, and wakes where the new driver has written the same number."""
    old = Standstill(place, lambda: written_by("new", place, "n"))
    old.add(unit("o", 2))
    old.quarantine([fault("qo")])
    with pytest.raises(RunError, match="another driver took over"):
        old.close()
    assert contents(place) == [["n"]]
    assert closed_units(place, KEY) == {"n:ab", "qn:ab"}
    assert [owner_of(file) for file in shard_files(place)] == ["new"]


def test_a_shard_that_an_old_driver_writes_late_is_doubled_by_nothing(
    place: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The new driver has looked what there was, and asks the open rows again, when its shard comes."""
    new = ShardWriter(place, SCHEMA, owner="new")
    written_by("old", place, "a")
    new.add(unit("a", 1))
    new.quarantine([fault("qa")])
    new.close()
    new.add(unit("b", 1))
    new.close()
    assert contents(place) == [["a"], ["b"]]
    assert {owner_of(file) for kind in ("shard", "quarantine") for file in shard_files(place, kind)} == {"new"}
    assert [message.split("/")[-1] for message in caplog.messages] == [
        f"{kind}-00000.parquet was written late by the writer before this one, and is replaced"
        for kind in ("shard", "quarantine")
    ]


def test_a_write_whose_answer_was_lost_is_no_other_drivers(
    place: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def answers_nothing(uri: str, data: bytes) -> None:
        create(uri, data)
        raise TimeoutError("the store did not answer")

    create, writer = shards.create_bytes, ShardWriter(place, SCHEMA, owner="new")
    writer.add(unit("a", 1))
    with monkeypatch.context() as store:
        store.setattr(shards, "create_bytes", answers_nothing)
        with pytest.raises(TimeoutError):
            writer.close()
    writer.close()
    assert contents(place) == [["a"]]
    assert not caplog.messages


def test_shards_that_name_no_driver_are_read(place: str) -> None:
    with ShardWriter(place, SCHEMA) as writer:
        writer.add(unit("a", 1))
    assert owner_of(shard_files(place)[0]) is None
    written_by("new", place, "b")
    assert contents(place) == [["a"], ["b"]]


def test_death_in_a_write_loses_that_shard_only_and_the_rest_is_cleaned_up(tmp_path, killed_before_rename) -> None:
    directory = str(tmp_path)
    writer = ShardWriter(directory, SCHEMA)
    writer.add(unit("a", 1))
    with pytest.raises(killed_before_rename):
        writer.close()
    assert [n.startswith(storage.TEMPORARY) for n in os.listdir(tmp_path)] == [True]
    assert closed_units(directory, KEY) == set()


def test_a_new_writer_removes_what_a_dead_one_left(tmp_path) -> None:
    (tmp_path / f"{storage.TEMPORARY}shard-00000.parquet-1").write_bytes(b"half")
    with ShardWriter(str(tmp_path), SCHEMA) as writer:
        writer.add(unit("a", 1))
    assert os.listdir(tmp_path) == ["shard-00000.parquet"]


def test_a_damaged_shard_is_named(place: str) -> None:
    with ShardWriter(place, SCHEMA) as writer:
        writer.add(unit("a", 50))
    file = shard_files(place)[0]
    fs, path = storage.filesystem(file)
    storage.write_bytes_atomic(file, fs.cat_file(path)[:-30])
    for read in (
        lambda: closed_units(place, KEY),
        lambda: row_counts(place),
        lambda: list(column_values(place, "tokens")),
    ):
        with pytest.raises(InputError, match=r"shard-00000\.parquet is not a whole Parquet file"):
            read()


@pytest.mark.parametrize("name", ["shard-00000 (copy).parquet", "shard-x.parquet", "shard-1.parquet"])
def test_a_file_that_looks_like_a_shard_is_refused(place: str, name: str) -> None:
    storage.write_bytes_atomic(storage.join(place, name), b"")
    with pytest.raises(InputError, match="is no shard of this run"):
        ShardWriter(place, SCHEMA)
    with pytest.raises(InputError, match="is no shard of this run"):
        closed_units(place, KEY)


def test_units_are_named_as_the_programs_name_them(place: str) -> None:
    rows = unit("a", 1)
    with ShardWriter(place, SCHEMA) as writer:
        writer.add(rows)
    assert closed_units(place, ("pair_id", "sample")) == {unit_id(rows[0], ("pair_id", "sample"))}


def test_counts_and_sums_cover_all_attempts(place: str) -> None:
    for name in ("a", "b"):
        with ShardWriter(place, SCHEMA) as writer:
            writer.add(unit(name, 3))
            writer.quarantine([fault(f"q{name}"), fault(f"r{name}", "too_long")])
    assert row_counts(place) == (6, {"empty": 2, "too_long": 2})
    assert list(column_values(place, "sample")) == [0, 1, 2] * 2


def test_an_empty_or_missing_folder_counts_nothing(place: str) -> None:
    assert closed_units(place, KEY) == set()
    assert row_counts(place) == (0, {})


def test_shards_past_the_fifth_digit_stay_in_order(place: str) -> None:
    for number in (99999, 100000):
        storage.write_parquet_atomic(pa.Table.from_pylist([], schema=SCHEMA), f"{place}/shard-{number:05d}.parquet")
    with ShardWriter(place, SCHEMA) as writer:
        writer.add(unit("a", 1))
    assert [f.rsplit("-", 1)[-1] for f in shard_files(place)] == ["99999.parquet", "100000.parquet", "100001.parquet"]


class Killed(BaseException):
    """The process dies here."""


class _Os:
    """The `os` of a process that dies before a file appears when `dying`; then it cleans nothing up either."""

    dying = False

    def __getattr__(self, name: str) -> Any:
        if self.dying and name in ("link", "replace", "unlink"):
            raise Killed
        return getattr(os, name)


class Crashes(RuleBasedStateMachine):
    """Any sequence of units, quarantined units, ticks and deaths (between writes, and in one)."""

    MAX_ROWS, MAX_SECONDS = 6, 30.0

    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.mkdtemp()
        self.os = _Os()
        self.clock = Clock()
        self.sizes: dict[str, int] = {}  # unit → rows; 0 is a quarantined one
        self.held: dict[str, float] = {}  # unit → when it was given to the living writer

    def teardown(self) -> None:
        storage.os = os
        shutil.rmtree(self.directory)

    @initialize()
    def start(self) -> None:
        storage.os = self.os  # type: ignore[assignment]
        self.resume()

    def resume(self) -> None:
        self.os.dying = False
        self.held = {}
        self.writer = ShardWriter(
            self.directory, SCHEMA, max_rows=self.MAX_ROWS, max_seconds=self.MAX_SECONDS, clock=self.clock
        )

    def give(self, name: str) -> None:
        self.held[name] = self.clock.now
        with self.death_resumes():
            if self.sizes[name]:
                self.writer.add(unit(name, self.sizes[name]))
            else:
                self.writer.quarantine([fault(name)])

    @contextlib.contextmanager
    def death_resumes(self):
        try:
            yield
        except Killed:
            self.resume()

    @rule(rows=st.integers(0, 8), dying=st.booleans())
    def new_unit(self, rows: int, dying: bool) -> None:
        self.os.dying = dying
        name = f"u{len(self.sizes)}"
        self.sizes[name] = rows
        self.give(name)
        self.os.dying = False

    @rule(seconds=st.sampled_from([1.0, 29.0, 31.0]), dying=st.booleans())
    def time_passes(self, seconds: float, dying: bool) -> None:
        self.clock.now += seconds
        self.os.dying = dying
        with self.death_resumes():
            self.writer.tick()
        self.os.dying = False

    @rule()
    def dies(self) -> None:
        self.resume()

    @precondition(lambda self: self.sizes)
    @rule()
    def asked_again(self) -> None:
        """What a resumed stage does: every unit in no closed shard and not with the writer."""
        done = closed_units(self.directory, KEY)
        for name in self.sizes:
            if f"{name}:ab" not in done and name not in self.held:
                self.give(name)

    @invariant()
    def shards_are_whole(self) -> None:
        shards = [Counter(shard) for shard in contents(self.directory)]
        quarantined = [
            identity
            for file in shard_files(self.directory, "quarantine")
            for identity in storage.read_parquet(file).column("id").to_pylist()
        ]
        names = [name for shard in shards for name in shard]
        assert len(names) == len(set(names)), "a unit lies in two shards"
        assert len(quarantined) == len(set(quarantined)), "a unit is quarantined twice"
        for shard in shards:
            assert all(rows == self.sizes[name] for name, rows in shard.items()), "a unit is not whole"
            assert shard.total() <= self.MAX_ROWS or len(shard) == 1
        assert closed_units(self.directory, KEY) == {f"{n}:ab" for n in names} | set(quarantined)

    @invariant()
    def little_is_open(self) -> None:
        """What a death now would lose: fewer rows than a shard holds, none of them old."""
        done = closed_units(self.directory, KEY)
        still = {name: since for name, since in self.held.items() if f"{name}:ab" not in done}
        assert sum(self.sizes[name] for name in still) < self.MAX_ROWS
        assert sum(not self.sizes[name] for name in still) < self.MAX_ROWS
        assert all(self.clock.now - since < self.MAX_SECONDS for since in still.values())

    @rule()
    def finishes(self) -> None:
        """A clean end after any history has every unit exactly once."""
        self.asked_again()
        self.writer.close()
        self.held = {}
        assert closed_units(self.directory, KEY) == {f"{name}:ab" for name in self.sizes}


TestCrashes = Crashes.TestCase
TestCrashes.settings = settings(
    max_examples=25, stateful_step_count=25, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)


def test_faults_of_rows_from_elsewhere_are_no_units_of_the_stage(tmp_path: Path) -> None:
    """A file of pairs that loses more rows than there are instructions must not end the making of pairs."""
    directory = str(tmp_path)
    lost = [{"id": f"line {i}", "stage": "given_pairs", "reason": "no_label", "detail": ""} for i in range(9)]
    own = {"id": "asked", "stage": "pairs", "reason": "refused", "detail": ""}
    with ShardWriter(directory, QUARANTINE) as writer:
        writer.quarantine([*lost, own])
    assert closed_units(directory, ["id"], stage="pairs") == {"asked"}
    assert len(closed_units(directory, ["id"])) == 10
