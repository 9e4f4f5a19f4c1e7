"""Training set: the selected judgments of one iteration, joined with their pairs, in TRL's formats.

Pointwise, both judgments of the kept sample of a pair are rows of their own; their `order` is the side judged.

The decision (which judgments) looks at keys and letters only. The texts stream: each shard of pairs is joined with
the few judgment shards that hold its samples, as one Ray task, so nothing is collected or shuffled.
"""

from __future__ import annotations

import pickle
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import ray.data

from ray_app.base.prompts import Prompt
from ray_app.base.schema import TRAIN_DPO, TRAIN_SFT
from ray_app.errors import RunError
from ray_app.generation.runner import StageResult
from ray_app.judging.protocol import PairProtocol
from ray_app.judging.registry import PROTOCOLS
from ray_app.judging.rejection_sampling import Sample, Selection, pass_rates
from ray_app.loop.config import IterateSettings
from ray_app.loop.stages.context import Context
from ray_app.run.shards import ShardWriter, row_counts
from ray_app.run.storage import list_files, read_parquet

STAGE = "train_set"
PAIRWISE = PROTOCOLS["pairwise"]


@dataclass(frozen=True)
class JoinTask:
    """One shard of pairs and the judgment shards to join with it; `wanted` maps (pair_id, order or side) to samples."""

    pairs_file: str
    judgment_files: tuple[str, ...]
    wanted: Mapping[tuple[str, str], tuple[int, ...]]
    protocol: PairProtocol = PAIRWISE


def settings_of(settings: IterateSettings) -> dict[str, Any]:
    """What the stage's fingerprint covers."""
    balance = settings.judging.balance if settings.protocol.has_preferences else None  # scores name no letter
    return {
        "seed": settings.seed,
        "judging": {"balance": balance},
        "train": {"recipe": settings.train.recipe},
    }


def run(context: Context, iteration: int) -> StageResult:
    """Write iter_NN/train_set/ and return its numbers. Raises RunError, with the cause, when nothing is left."""
    settings, started = context.settings, time.monotonic()
    directory = context.folder.stage_dir(STAGE, iteration)
    context.folder.clear(directory)  # quick and deterministic: an interrupted attempt starts again
    judgment_files = list_files(context.folder.stage_dir("judgments", iteration), "shard-*.parquet")
    protocol = settings.protocol
    made = protocol.choice(
        judgment_files,
        seed=settings.seed,
        iteration=iteration,
        balance=settings.judging.balance,
        recipe=settings.train.recipe,
    )
    if not made.selected:
        raise RunError(made.empty_cause)
    pairs_files = list_files(context.pairs_dir(iteration), "shard-*.parquet")
    rates = pass_rates_by(made.selection, pairs_files)
    tasks = plan(pairs_files, made.selected, made.files, protocol)
    prompt = context.inputs.prompt(protocol.prompt_setting)
    with ShardWriter(directory, schema_of(settings.train.recipe)) as writer:
        for row in joined(tasks, prompt, iteration):
            writer.add([row])
    rows, _ = row_counts(directory)
    seconds = time.monotonic() - started
    return StageResult(made.drawn, rows, {}, seconds=seconds, extra=numbers(made.selection, rows) | rates)


def numbers(selection: Selection, rows: int) -> dict[str, Any]:
    """What the table reports of a selection."""
    return {
        "rows": rows,
        "tried": selection.tried,
        "kept": selection.kept,
        "keep_rate": selection.keep_rate,
        "kept_by_letter": selection.kept_by_letter,
        "dropped_by_balance": selection.dropped_by_balance,
        "pass_rate": selection.pass_rate,
        "pass_rate_n": len(selection.first),
        "pairs": len({row.pair_id for row in selection.rows}),
    }


def pass_rates_by(selection: Selection, pairs_files: Iterable[str]) -> dict[str, Any]:
    """The pass rate by the pairs' category and complexity. Raises RunError where judgments have lost their pairs."""
    columns = ["pair_id", "category", "complexity"]
    pairs = [row for file in pairs_files for row in read_parquet(file, columns=columns).to_pylist()]
    lost = {identity for identity, _ in selection.first} - {row["pair_id"] for row in pairs}
    if lost:
        raise RunError(f"{len(lost)} judged pairs are not in the table of pairs, {min(lost)} among them")
    return {
        f"pass_rate_by_{name}": pass_rates(selection.first, {row["pair_id"]: row[name] for row in pairs})
        for name in ("category", "complexity")
    }


def joined(tasks: list[JoinTask], prompt: Prompt, iteration: int) -> Iterable[dict[str, Any]]:
    """Rows of the training set, streamed through Ray Data in the order of the tasks."""
    # A copy, for this graph alone: in the others a slow block would hold back those behind it.
    context = ray.data.DataContext.get_current().copy()
    context.execution_options.preserve_order = True
    with ray.data.DataContext.current(context):
        # Tasks cross as bytes: an Arrow column cannot hold them.
        dataset = ray.data.from_items([{"task": pickle.dumps(task)} for task in tasks])
        blocks = dataset.map(lambda row: {"rows": pickle.dumps(join(pickle.loads(row["task"]), prompt, iteration))})
    for block in blocks.iter_rows():
        yield from pickle.loads(block["rows"])


def plan(
    pairs_files: Iterable[str],
    selected: Iterable[tuple[Sample, ...]],
    files: Mapping[str, set[str]],
    protocol: PairProtocol = PAIRWISE,
) -> list[JoinTask]:
    """One task for every shard of pairs that has selected judgments."""
    wanted = {group[0].unit: tuple(sample.sample for sample in group) for group in selected}
    by_pair: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for unit in wanted:
        by_pair[unit[0]].append(unit)
    tasks = []
    for pairs_file in pairs_files:
        ids = read_parquet(pairs_file, columns=["pair_id"]).column("pair_id").to_pylist()
        units = [unit for identity in ids for unit in by_pair.get(identity, ())]
        if units:
            needed = sorted({file for unit in units for file in files[unit[0]]})
            tasks.append(JoinTask(pairs_file, tuple(needed), {unit: wanted[unit] for unit in units}, protocol))
    return tasks


def join(task: JoinTask, prompt: Prompt, iteration: int) -> list[dict[str, Any]]:
    """Rows of the training set (SFT where one sample is wanted, DPO where two) of one shard of pairs."""
    ids = pa.array(sorted({unit[0] for unit in task.wanted}))
    prompts = {
        unit: messages
        for pair in _only(task.pairs_file, ids)
        for unit, messages in task.protocol.pair_prompts(pair, prompt)
    }
    part = task.protocol.part
    texts = {
        (row["pair_id"], row[part], row["sample"]): row["text"]
        for file in task.judgment_files
        for row in _only(file, ids)
    }
    rows = []
    for (identity, order), samples in sorted(task.wanted.items()):
        messages = prompts[identity, order]
        answers = [[{"role": "assistant", "content": texts[identity, order, sample]}] for sample in samples]
        key = {"pair_id": identity, "order": order, "sample": samples[0], "iteration": iteration}
        if len(samples) == 1:
            rows.append({**key, "prompt": messages, "completion": answers[0]})
        else:
            rows.append({**key, "prompt": messages, "chosen": answers[0], "rejected": answers[1]})
    return rows


def schema_of(recipe: str) -> pa.Schema:
    return TRAIN_DPO if recipe == "dpo" else TRAIN_SFT


def _only(file: str, ids: pa.Array) -> list[dict[str, Any]]:
    table = read_parquet(file)
    rows: list[dict[str, Any]] = table.filter(pc.is_in(table.column("pair_id"), value_set=ids)).to_pylist()
    return rows
