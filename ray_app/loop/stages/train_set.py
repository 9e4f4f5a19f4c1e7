"""Training set: the selected judgments of one iteration, joined with their pairs, in TRL's formats.

Pointwise, both judgments of the kept sample of a pair are rows of their own; their `order` is the side judged.

The decision (which judgments) looks at keys and letters only. The texts stream: each shard of pairs is joined with
the few judgment shards that hold its samples, as one Ray task, so nothing is collected or shuffled. They stream twice:
first every kept judgment is encoded, as training will do it, and what cannot be trained on is quarantined; then the
letters are balanced among the others.
"""

from __future__ import annotations

import pickle
import statistics
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import ray.data

from ray_app.base.model_files import absolute
from ray_app.base.ngrams import words
from ray_app.base.prompts import Prompt
from ray_app.base.schema import TRAIN_DPO, TRAIN_SFT, Message
from ray_app.base.verdict import explanation
from ray_app.errors import RunError
from ray_app.generation.runner import StageResult
from ray_app.judging.protocol import PairProtocol
from ray_app.judging.rejection_sampling import Choice, Rule, Sample, Selection, Unit, pass_rates
from ray_app.loop.config import IterateSettings
from ray_app.loop.stages.context import Context
from ray_app.run.shards import ShardWriter, row_counts
from ray_app.run.storage import list_files, read_parquet
from ray_app.train.data import DRAWN, IN_PLACE, row_id
from ray_app.train.trainable import Trainer

STAGE = "train_set"


@dataclass(frozen=True)
class JoinTask:
    """One shard of pairs and the judgment shards to join with it; `wanted` maps (pair_id, order or side) to samples."""

    pairs_file: str
    judgment_files: tuple[str, ...]
    wanted: Mapping[Unit, tuple[int, ...]]


@dataclass(frozen=True)
class Fault:
    """A unit whose row cannot be trained on, and its line of the quarantine."""

    unit: Unit
    record: dict[str, str]


@dataclass(frozen=True)
class Join:
    """Makes rows of the training set (SFT where one sample is wanted, DPO where two) of one shard of pairs."""

    prompt: Prompt
    iteration: int
    protocol: PairProtocol
    trainer: Trainer

    def faults(self, task: JoinTask) -> list[Fault]:
        """Those of its rows that cannot be trained on."""
        found = []
        for row in self.rows(task):
            fault = self.trainer.fault(row)
            if fault is not None:
                reason = {"stage": STAGE, "reason": fault.reason, "detail": fault.detail}
                found.append(Fault((row["pair_id"], row["order"]), {"id": row_id(row), **reason}))
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
            for unit, samples in sorted(task.wanted.items())
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


def settings_of(settings: IterateSettings) -> dict[str, Any]:
    """What the stage's fingerprint covers."""
    balance = settings.judging.balance if settings.protocol.has_preferences else None  # scores name no letter
    judging: dict[str, Any] = {"balance": balance}
    if settings.judging.max_draws is not None:  # newer settings are covered where they change something
        judging["max_draws"] = settings.judging.max_draws
    if settings.judging.min_pass_rate:
        judging["min_pass_rate"] = settings.judging.min_pass_rate
    return {
        "seed": settings.seed,
        "judging": judging,
        "train": {"recipe": settings.train.recipe},
    }


def run(context: Context, iteration: int) -> StageResult:
    """Write iter_NN/train_set/ and return its numbers. Raises RunError, with the cause, when nothing is left."""
    settings, started = context.settings, time.monotonic()
    directory = context.folder.stage_dir(STAGE, iteration)
    context.folder.clear(directory)  # quick and deterministic: an interrupted attempt starts again
    judgment_files = list_files(context.folder.stage_dir("judgments", iteration), "shard-*.parquet")
    protocol = settings.protocol
    every = Rule(
        settings.seed,
        iteration,
        balance=False,
        recipe=settings.train.recipe,
        max_draws=settings.judging.max_draws,
        min_pass_rate=settings.judging.min_pass_rate,
    )
    kept = protocol.choice(judgment_files, every)
    pairs_files = list_files(context.pairs_dir(iteration), "shard-*.parquet")
    rates = pass_rates_by(kept.selection, pairs_files)
    join = Join(context.inputs.prompt(protocol.prompt_setting), iteration, protocol, trainer_of(settings))
    faults = list(streamed(join.faults, plan(pairs_files, kept.selected, kept.files))) if kept.selected else []
    lost_units = frozenset(fault.unit for fault in faults)
    made = protocol.choice(judgment_files, replace(every, balance=settings.judging.balance, lost=lost_units))
    if not made.selected:
        with ShardWriter(directory, schema_of(settings.train.recipe)) as writer:
            writer.quarantine([fault.record for fault in faults])  # the reasons can be read
        raise RunError(cause(made, faults, len(kept.selected)))
    with ShardWriter(directory, schema_of(settings.train.recipe)) as writer:
        writer.quarantine([fault.record for fault in faults])
        said: list[str] = []
        for row in streamed(join.rows, plan(pairs_files, made.selected, made.files)):
            writer.add([row])
            said.append(explanation(row["completion" if "completion" in row else "chosen"][0]["content"]))
    rows, lost = row_counts(directory)
    seconds = time.monotonic() - started
    limit = {"sequence_length": settings.train.sequence_length} if lost else {}
    extra = numbers(made, rows) | explained(said) | rates | limit
    return StageResult(made.drawn, rows, lost, seconds=seconds, extra=extra)


def trainer_of(settings: IterateSettings) -> Trainer:
    """What training will do with a row of this run."""
    seed = settings.judge
    return Trainer(absolute(seed.model), seed.revision, settings.train.sequence_length, seed.chat_template_kwargs)


def explained(texts: list[str]) -> dict[str, Any]:
    """What judgments say besides their verdict: a judge that learns from bare verdicts, or from one phrase, explains
    nothing. `distinct_explanations` is their share among those that say something.
    """
    lengths = sorted(len(words(text)) for text in texts)
    said = [" ".join(words(text)) for text in texts if words(text)]
    return {
        "explanation_words_median": statistics.median(lengths) if lengths else None,
        "bare_verdicts": sum(length == 0 for length in lengths) / len(lengths) if lengths else None,
        "distinct_explanations": len(set(said)) / len(said) if said else None,
    }


def cause(made: Choice, faults: list[Fault], kept: int) -> str:
    """Why there is nothing to train on, in numbers."""
    if not faults:
        return made.empty_cause
    reasons = Counter(fault.record["reason"] for fault in faults)
    told = ", ".join(f"{reason} {count}" for reason, count in sorted(reasons.items()))
    return (
        f"the training set is empty: of {kept} kept judgments {len(faults)} cannot be trained on ({told}: "
        f"{faults[0].record['detail']}), and of the others one letter alone is left, or none"
    )


def numbers(made: Choice, rows: int) -> dict[str, Any]:
    """What the table reports of a selection."""
    selection = made.selection
    letters = Counter(str(group[0].verdict) for group in made.selected if group[0].verdict)
    return {
        "rows": rows,
        "tried": selection.tried,
        "kept": selection.kept,
        "keep_rate": selection.keep_rate,
        "kept_by_letter": selection.kept_by_letter,
        "dropped_by_balance": selection.dropped_by_balance,
        "trained_by_letter": dict(sorted(letters.items())),
        "pass_rate": selection.pass_rate,
        "pass_rate_n": len(selection.first),
        "pairs": len({row.pair_id for row in selection.rows}),
    } | ({"dropped_unsure": made.unsure} if made.unsure else {})


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
            tasks.append(JoinTask(pairs_file, tuple(needed), {unit: wanted[unit] for unit in units}))
    return tasks


def schema_of(recipe: str) -> pa.Schema:
    return TRAIN_DPO if recipe == "dpo" else TRAIN_SFT


def _only(file: str, ids: pa.Array) -> list[dict[str, Any]]:
    table = read_parquet(file)
    rows: list[dict[str, Any]] = table.filter(pc.is_in(table.column("pair_id"), value_set=ids)).to_pylist()
    return rows
