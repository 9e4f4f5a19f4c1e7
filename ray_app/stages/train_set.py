"""Training set: the selected judgments of one iteration, joined with their pairs, in TRL's formats.

Pointwise, both judgments of the kept sample of a pair are rows of their own; their `order` is the side judged.

The decision (which judgments) looks at keys and letters only. The texts stream: each shard of pairs is joined with
the few judgment shards that hold its samples, as one Ray task, so nothing is collected or shuffled.
"""

from __future__ import annotations

import pickle
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import ray.data

from ray_app.config import IterateSettings
from ray_app.errors import RunError
from ray_app.programs.rows import SIDES, judge_messages, pair_units, score_messages
from ray_app.prompts import Prompt, load_prompt
from ray_app.run.shards import ShardWriter, row_counts
from ray_app.run.storage import list_files, read_parquet
from ray_app.runner import StageResult
from ray_app.schema import TRAIN_DPO, TRAIN_SFT, Message
from ray_app.selection import (
    Sample,
    Selection,
    empty_cause,
    empty_scored_cause,
    pass_rates,
    preferences,
    select,
    select_scored,
)
from ray_app.stages.context import Context

STAGE = "train_set"
KEYS = ["pair_id", "order", "sample", "verdict", "correct", "kept"]
SCORE_KEYS = ["pair_id", "side", "sample", "score"]


@dataclass(frozen=True)
class JoinTask:
    """One shard of pairs and the judgment shards to join with it; `wanted` maps (pair_id, order or side) to samples."""

    pairs_file: str
    judgment_files: tuple[str, ...]
    wanted: Mapping[tuple[str, str], tuple[int, ...]]
    pointwise: bool = False


def settings_of(settings: IterateSettings) -> dict[str, Any]:
    """What the stage's fingerprint covers."""
    balance = settings.judging.balance if settings.judging.mode == "pairwise" else None
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
    pointwise = settings.judging.mode == "pointwise"
    made = choose_scored(judgment_files) if pointwise else choose(settings, judgment_files, iteration)
    if not made.selected:
        raise RunError(made.empty_cause)
    pairs_files = list_files(context.pairs_dir(iteration), "shard-*.parquet")
    rates = pass_rates_by(made.selection, pairs_files)
    tasks = plan(pairs_files, made.selected, made.files, pointwise)
    prompt = load_prompt(settings.judge_prompt)
    with ShardWriter(directory, schema_of(settings.train.recipe)) as writer:
        for row in joined(tasks, prompt, iteration):
            writer.add([row])
    rows, _ = row_counts(directory)
    seconds = time.monotonic() - started
    return StageResult(made.drawn, rows, {}, seconds=seconds, extra=numbers(made.selection, rows) | rates)


@dataclass(frozen=True)
class Choice:
    """What was drawn, what is selected of it, and where its texts are ({pair_id: judgment files})."""

    selection: Selection
    selected: Sequence[tuple[Sample, ...]]
    files: Mapping[str, set[str]]
    drawn: int
    empty_cause: str


def choose(settings: IterateSettings, judgment_files: Iterable[str], iteration: int) -> Choice:
    """Pairwise: balanced letters for SFT, (correct, wrong) for DPO."""
    samples, files = read_samples(judgment_files)
    selection = select(samples, settings.seed, iteration, settings.judging.balance)
    selected = chosen_samples(settings, samples, selection, iteration)
    cause = empty_cause(selection, sum(s.verdict is None for s in samples), len(samples))
    return Choice(selection, selected, files, len(samples), cause)


def choose_scored(judgment_files: Iterable[str]) -> Choice:
    """Pointwise: both judgments of the first sample whose chosen score is higher."""
    drawn: dict[str, dict[int, dict[str, float | None]]] = defaultdict(lambda: defaultdict(dict))
    files: dict[str, set[str]] = defaultdict(set)
    unparsed = rows = 0
    for file in judgment_files:
        for row in read_parquet(file, columns=SCORE_KEYS).to_pylist():
            drawn[row["pair_id"]][row["sample"]][row["side"]] = row["score"]
            files[row["pair_id"]].add(file)
            unparsed, rows = unparsed + (row["score"] is None), rows + 1
    scores = {
        identity: [(samples[j].get("chosen"), samples[j].get("rejected")) for j in sorted(samples)]
        for identity, samples in drawn.items()
    }
    selection = select_scored(scores)
    cause = empty_scored_cause(selection, unparsed, rows)
    return Choice(selection, [(row,) for row in selection.rows], files, rows, cause)


def chosen_samples(
    settings: IterateSettings, samples: list[Sample], selection: Selection, iteration: int
) -> list[tuple[Sample, ...]]:
    """(kept,) for SFT, (correct, wrong) for DPO."""
    if settings.train.recipe == "dpo":
        return list(preferences(samples, settings.seed, iteration))
    return [(sample,) for sample in selection.rows]


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
    context = ray.data.DataContext.get_current()
    context.execution_options.preserve_order = True
    # Tasks cross as bytes: an Arrow column cannot hold them.
    dataset = ray.data.from_items([{"task": pickle.dumps(task)} for task in tasks])
    blocks = dataset.map(lambda row: {"rows": pickle.dumps(join(pickle.loads(row["task"]), prompt, iteration))})
    for block in blocks.iter_rows():
        yield from pickle.loads(block["rows"])


def read_samples(judgment_files: Iterable[str]) -> tuple[list[Sample], dict[str, set[str]]]:
    """All samples without their texts, and for each pair_id the files that hold its samples."""
    samples: list[Sample] = []
    files: dict[str, set[str]] = defaultdict(set)
    for file in judgment_files:
        for row in read_parquet(file, columns=KEYS).to_pylist():
            samples.append(Sample(**row))
            files[row["pair_id"]].add(file)
    return samples, files


def plan(
    pairs_files: Iterable[str],
    selected: Iterable[tuple[Sample, ...]],
    files: Mapping[str, set[str]],
    pointwise: bool = False,
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
            tasks.append(JoinTask(pairs_file, tuple(needed), {unit: wanted[unit] for unit in units}, pointwise))
    return tasks


def join(task: JoinTask, prompt: Prompt, iteration: int) -> list[dict[str, Any]]:
    """Rows of the training set (SFT where one sample is wanted, DPO where two) of one shard of pairs."""
    ids = pa.array(sorted({unit[0] for unit in task.wanted}))
    prompts = {
        unit: messages
        for pair in _only(task.pairs_file, ids)
        for unit, messages in prompts_of(pair, prompt, task.pointwise)
    }
    part = "side" if task.pointwise else "order"
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


def prompts_of(
    pair: Mapping[str, Any], prompt: Prompt, pointwise: bool
) -> Iterator[tuple[tuple[str, str], list[Message]]]:
    """((pair_id, order or side), the messages the judge saw) of everything asked about a pair."""
    if pointwise:
        for side in SIDES:
            yield (pair["pair_id"], side), score_messages(prompt, pair["instruction"], pair[side])
    else:
        for unit in pair_units(pair):
            yield (unit["pair_id"], unit["order"]), judge_messages(prompt, unit)


def schema_of(recipe: str) -> pa.Schema:
    return TRAIN_DPO if recipe == "dpo" else TRAIN_SFT


def _only(file: str, ids: pa.Array) -> list[dict[str, Any]]:
    table = read_parquet(file)
    rows: list[dict[str, Any]] = table.filter(pc.is_in(table.column("pair_id"), value_set=ids)).to_pylist()
    return rows
