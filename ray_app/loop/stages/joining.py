"""Judgments joined with their pairs: rows of the training set, and which of them cannot be trained on.

The texts stream: some shards of pairs are joined with the judgment shards that hold their samples, as one Ray task, so
nothing is collected or shuffled. Engines answer out of order, so the judgments of one shard of pairs lie in many files,
nearly the same ones as its neighbours': a task takes as many shards as it needs so that few files are read twice.
"""

from __future__ import annotations

import pickle
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import ray.data

from ray_app.base.prompts import Prompt
from ray_app.base.schema import Message
from ray_app.judging.protocol import PairProtocol
from ray_app.judging.samples import Judgment, Places, Sample, Unit
from ray_app.run.storage import read_parquet
from ray_app.system.background import in_threads
from ray_app.train.data import DRAWN, IN_PLACE, row_id
from ray_app.train.trainable import Trainer

TRAIN_SET = "train_set"  # the stage whose rows these are
FEWEST_TASKS = 16  # so that a large table keeps cores busy
MOST_SHARDS = 32  # of pairs in a task: its judgments are in memory at once
MOST_READS = 2.0  # of the table of judgments, where tasks may be large enough


Wanted = Mapping[Unit, tuple[tuple[int, ...], ...]]  # the samples of each row, by (pair_id, order or side)


@dataclass(frozen=True)
class JoinTask:
    """Shards of pairs, each with what is wanted of it, and the judgment shards to join with them."""

    shards: tuple[tuple[str, Wanted], ...]
    judgment_files: tuple[str, ...]

    @property
    def judgments(self) -> set[Judgment]:
        """All that it needs of the judgment shards."""
        return {(*unit, j) for _, wanted in self.shards for unit, rows in wanted.items() for row in rows for j in row}


@dataclass(frozen=True)
class Fault:
    """A judgment that cannot be trained on, and its line of the quarantine."""

    judgment: Judgment
    record: dict[str, str]


@dataclass(frozen=True)
class Join:
    """Makes rows of the training set (SFT of one sample each, DPO of two) of one shard of pairs."""

    prompt: Prompt
    iteration: int
    protocol: PairProtocol
    trainer: Trainer

    def faults(self, task: JoinTask) -> Iterator[list[Fault]]:
        """Those of its judgments that cannot be trained on, shard by shard."""
        for (_, wanted), rows in zip(task.shards, self.rows(task), strict=True):
            found = []
            each = in_threads(self.trainer.faults, rows)
            for row, samples, faults in zip(rows, chosen_of(wanted), each, strict=True):
                for name, fault in faults.items():
                    own = {**row, "sample": samples[-1] if name == "rejected" else samples[0]}
                    reason = {"stage": TRAIN_SET, "reason": fault.reason, "detail": fault.detail}
                    judgment = (row["pair_id"], row["order"], own["sample"])
                    found.append(Fault(judgment, {"id": row_id(own), **reason}))
            yield found

    def rows(self, task: JoinTask) -> Iterator[list[dict[str, Any]]]:
        """Its rows by key, shard by shard."""
        prompt = self.prompt.guarded(self.trainer.control)
        drawn = drawn_of(task, self.protocol.part)
        for pairs_file, wanted in task.shards:
            prompts = {
                unit: messages
                for pair in _only(pairs_file, {unit[0] for unit in wanted}).to_pylist()
                for unit, messages in self.protocol.pair_prompts(pair, prompt)
            }
            yield [
                self._row(unit, samples[0], prompts[unit], [drawn[*unit, sample].answer for sample in samples])
                for unit, rows in sorted(wanted.items())
                for samples in rows
            ]

    def _row(
        self, unit: Unit, sample: int, prompt: list[Message], answers: list[tuple[str, list[int] | None]]
    ) -> dict[str, Any]:
        names = ("completion",) if len(answers) == 1 else ("chosen", "rejected")
        row: dict[str, Any] = {"pair_id": unit[0], "order": unit[1], "sample": sample, "iteration": self.iteration}
        row["prompt"] = prompt
        for name, (text, ids) in zip(names, answers, strict=True):
            row |= {name: [{"role": "assistant", "content": text}], DRAWN[name]: ids}
        return row


@dataclass(frozen=True)
class Drawn:
    """One judgment of a table in memory. As Python objects its tokens would take ten times the room."""

    table: pa.Table
    index: int

    @property
    def answer(self) -> tuple[str, list[int] | None]:
        """Its text, and its tokens as drawn where they are known."""
        ids = self.table.column("token_ids")[self.index].as_py() if "token_ids" in self.table.column_names else None
        return self.table.column("text")[self.index].as_py(), ids


def drawn_of(task: JoinTask, part: str) -> dict[Judgment, Drawn]:
    """The judgments that a task needs, each file read once. `part`: the column of orders or sides."""
    needed, found = task.judgments, dict[Judgment, Drawn]()
    ids = {judgment[0] for judgment in needed}
    for file in task.judgment_files:
        table = _only(file, ids)
        keys = list(zip(*(table.column(name).to_pylist() for name in ("pair_id", part, "sample")), strict=True))
        own = [index for index, key in enumerate(keys) if key in needed]
        kept = table.take(pa.array(own, pa.int64())).combine_chunks()
        found |= {keys[index]: Drawn(kept, number) for number, index in enumerate(own)}
    return found


def chosen_of(wanted: Wanted) -> list[tuple[int, ...]]:
    """The samples of each row that `Join.rows` makes of a shard, in its order."""
    return [samples for _, rows in sorted(wanted.items()) for samples in rows]


def streamed(made_of: Callable[[JoinTask], Iterator[list[Any]]], tasks: list[JoinTask]) -> Iterator[Any]:
    """What is made of each task, in the order of the tasks: through Ray Data, and in place where it is little."""
    if sum(len(wanted) for task in tasks for _, wanted in task.shards) <= IN_PLACE:
        for task in tasks:
            for made in made_of(task):
                yield from made
        return

    def whole(row: dict[str, Any]) -> dict[str, Any]:
        # Bytes shard by shard: as Python objects the rows of a whole task would take several times the room.
        return {"made": pickle.dumps([pickle.dumps(made) for made in made_of(pickle.loads(row["task"]))])}

    # A copy, for this graph alone: in the others a slow block would hold back those behind it.
    context = ray.data.DataContext.get_current().copy()
    context.execution_options.preserve_order = True
    with ray.data.DataContext.current(context):
        # Tasks cross as bytes: an Arrow column cannot hold them.
        dataset = ray.data.from_items([{"task": pickle.dumps(task)} for task in tasks])
        blocks = dataset.map(whole)
    for block in blocks.iter_rows():
        for packed in pickle.loads(block["made"]):
            yield from pickle.loads(packed)


def shards_a_task(places: Sequence[Collection[str]]) -> int:
    """How many shards of pairs a task joins, where each has its judgments in these files: as few as let the whole table
    be read MOST_READS times, or so many that FEWEST_TASKS are left. Pure.
    """
    most, size = min(MOST_SHARDS, len(places) // FEWEST_TASKS), 1
    files = len(set().union(*places))
    while 2 * size <= most and reads(places, size) > MOST_READS * files:
        size *= 2
    return size


def reads(places: Sequence[Collection[str]], size: int) -> int:
    """How many files are read by tasks of `size` shards. Pure."""
    return sum(len(set().union(*places[start : start + size])) for start in range(0, len(places), size))


def plan(
    pairs_files: Iterable[str],
    selected: Iterable[tuple[Sample, ...]],
    files: Places,
) -> list[JoinTask]:
    """Tasks for every shard of pairs that has selected judgments, in the shards' order."""
    wanted: dict[Unit, list[tuple[int, ...]]] = defaultdict(list)
    for group in selected:
        wanted[group[0].unit].append(tuple(sample.sample for sample in group))
    by_pair: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for unit in wanted:
        by_pair[unit[0]].append(unit)
    shards: list[tuple[str, Wanted]] = []
    for pairs_file in pairs_files:
        ids = read_parquet(pairs_file, columns=["pair_id"]).column("pair_id").to_pylist()
        if units := [unit for identity in ids for unit in by_pair.get(identity, ())]:
            shards.append((pairs_file, {unit: tuple(wanted[unit]) for unit in units}))
    places = [{file for unit in wanted for file in files[unit[0]]} for _, wanted in shards]
    size = shards_a_task(places)
    return [
        JoinTask(tuple(shards[start : start + size]), tuple(sorted(set().union(*places[start : start + size]))))
        for start in range(0, len(shards), size)
    ]


def _only(file: str, ids: Iterable[str]) -> pa.Table:
    table = read_parquet(file)
    return table.filter(pc.is_in(table.column("pair_id"), value_set=pa.array(sorted(ids), pa.string())))
