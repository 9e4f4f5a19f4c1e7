"""Judgments joined with their pairs: rows of the training set, and which of them cannot be trained on.

The texts stream: each shard of pairs is joined with the few judgment shards that hold its samples, as one Ray task, so
nothing is collected or shuffled.
"""

from __future__ import annotations

import pickle
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import ray.data

from ray_app.base.prompts import Prompt
from ray_app.base.schema import Message
from ray_app.judging.protocol import PairProtocol
from ray_app.judging.rejection_sampling import Judgment, Sample, Unit
from ray_app.run.storage import read_parquet
from ray_app.system.background import in_threads
from ray_app.train.data import DRAWN, IN_PLACE, row_id
from ray_app.train.trainable import Trainer

TRAIN_SET = "train_set"  # the stage whose rows these are


@dataclass(frozen=True)
class JoinTask:
    """One shard of pairs and the judgment shards to join with it; `wanted` maps (pair_id, order or side) to the samples
    of each of its rows.
    """

    pairs_file: str
    judgment_files: tuple[str, ...]
    wanted: Mapping[Unit, tuple[tuple[int, ...], ...]]


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

    def faults(self, task: JoinTask) -> list[Fault]:
        """Those of its judgments that cannot be trained on."""
        found, rows = [], self.rows(task)
        for row, samples, faults in zip(rows, chosen_of(task), in_threads(self.trainer.faults, rows), strict=True):
            for name, fault in faults.items():
                own = {**row, "sample": samples[-1] if name == "rejected" else samples[0]}
                reason = {"stage": TRAIN_SET, "reason": fault.reason, "detail": fault.detail}
                judgment = (row["pair_id"], row["order"], own["sample"])
                found.append(Fault(judgment, {"id": row_id(own), **reason}))
        return found

    def rows(self, task: JoinTask) -> list[dict[str, Any]]:
        """Its rows, by key."""
        ids, part = pa.array(sorted({unit[0] for unit in task.wanted})), self.protocol.part
        prompt = self.prompt.guarded(self.trainer.control)
        prompts = {
            unit: messages
            for pair in _only(task.pairs_file, ids)
            for unit, messages in self.protocol.pair_prompts(pair, prompt)
        }
        drawn = {
            (row["pair_id"], row[part], row["sample"]): (row["text"], row.get("token_ids"))
            for file in task.judgment_files
            for row in _only(file, ids)
        }
        return [
            self._row(unit, samples[0], prompts[unit], [drawn[*unit, sample] for sample in samples])
            for unit, rows in sorted(task.wanted.items())
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


def chosen_of(task: JoinTask) -> list[tuple[int, ...]]:
    """The samples of each row that `Join.rows` makes of a task, in its order."""
    return [samples for _, rows in sorted(task.wanted.items()) for samples in rows]


def streamed(made_of: Callable[[JoinTask], list[Any]], tasks: list[JoinTask]) -> Iterator[Any]:
    """What is made of each task, in the order of the tasks: through Ray Data, and in place where it is little."""
    if sum(len(task.wanted) for task in tasks) <= IN_PLACE:
        for task in tasks:
            yield from made_of(task)
        return
    # A copy, for this graph alone: in the others a slow block would hold back those behind it.
    context = ray.data.DataContext.get_current().copy()
    context.execution_options.preserve_order = True
    with ray.data.DataContext.current(context):
        # Tasks cross as bytes: an Arrow column cannot hold them.
        dataset = ray.data.from_items([{"task": pickle.dumps(task)} for task in tasks])
        blocks = dataset.map(lambda row: {"made": pickle.dumps(made_of(pickle.loads(row["task"])))})
    for block in blocks.iter_rows():
        yield from pickle.loads(block["made"])


def plan(
    pairs_files: Iterable[str],
    selected: Iterable[tuple[Sample, ...]],
    files: Mapping[str, set[str]],
) -> list[JoinTask]:
    """One task for every shard of pairs that has selected judgments."""
    wanted: dict[Unit, list[tuple[int, ...]]] = defaultdict(list)
    for group in selected:
        wanted[group[0].unit].append(tuple(sample.sample for sample in group))
    by_pair: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for unit in wanted:
        by_pair[unit[0]].append(unit)
    tasks = []
    for pairs_file in pairs_files:
        ids = read_parquet(pairs_file, columns=["pair_id"]).column("pair_id").to_pylist()
        units = [unit for identity in ids for unit in by_pair.get(identity, ())]
        if units:
            needed = sorted({file for unit in units for file in files[unit[0]]})
            tasks.append(JoinTask(pairs_file, tuple(needed), {unit: tuple(wanted[unit]) for unit in units}))
    return tasks


def _only(file: str, ids: pa.Array) -> list[dict[str, Any]]:
    table = read_parquet(file)
    rows: list[dict[str, Any]] = table.filter(pc.is_in(table.column("pair_id"), value_set=ids)).to_pylist()
    return rows
