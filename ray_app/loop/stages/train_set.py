"""Training set: the selected judgments of one iteration, joined with their pairs, in TRL's formats.

Pointwise, both judgments of the kept sample of a pair are rows of their own; their `order` is the side judged.

The decision (which judgments) looks at keys and letters only. The texts stream twice (joining.py): first every kept
judgment is encoded, as training will do it, and what cannot be trained on is quarantined; then the letters are balanced
among the others.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pyarrow as pa

from ray_app.base.schema import TRAIN_DPO, TRAIN_SFT
from ray_app.errors import RunError
from ray_app.generation.runner import StageResult
from ray_app.judging.rejection_sampling import Choice, Rule, Selection, pass_rates
from ray_app.judging.said import Said
from ray_app.judging.samples import Judgment, Sample
from ray_app.loop.config import IterateSettings
from ray_app.loop.stages.context import Context
from ray_app.loop.stages.inputs import trainer_of
from ray_app.loop.stages.joining import TRAIN_SET, Fault, Join, plan, streamed
from ray_app.run.shards import row_counts
from ray_app.run.storage import list_files, read_parquet

STAGE = TRAIN_SET
CHOOSING = {"pairs_per_prompt", "unparsed_as_wrong"}  # of `train.dpo`: what makes the set another one


def settings_of(settings: IterateSettings) -> dict[str, Any]:
    """What the stage's fingerprint covers."""
    balance = settings.judging.balance if settings.protocol.has_preferences else None  # scores name no letter
    judging: dict[str, Any] = {"balance": balance}
    if settings.judging.max_draws is not None:  # newer settings are covered where they change something
        judging["max_draws"] = settings.judging.max_draws
    if settings.judging.min_pass_rate:
        judging["min_pass_rate"] = settings.judging.min_pass_rate
    train: dict[str, Any] = {"recipe": settings.train.recipe}
    dpo = {name: value for name, value in settings.train.dpo.covered().items() if name in CHOOSING}
    if settings.train.recipe == "dpo" and dpo:
        train["dpo"] = dpo
    return {"seed": settings.seed, "judging": judging, "train": train}


def run(context: Context, iteration: int) -> StageResult:
    """Write iter_NN/train_set/ and return its numbers. Raises RunError, with the cause, when nothing is left."""
    settings, started = context.settings, time.monotonic()
    directory = context.folder.stage_dir(STAGE, iteration)
    context.clear(directory)  # quick and deterministic: an interrupted attempt starts again
    judgment_files = list_files(context.folder.stage_dir("judgments", iteration), "shard-*.parquet")
    protocol = settings.protocol
    every = rule_of(settings, iteration)
    kept = protocol.choice(judgment_files, every)
    pairs_files = list_files(context.pairs_dir(iteration), "shard-*.parquet")
    rates = pass_rates_by(kept.selection, pairs_files)
    join = Join(context.inputs.prompt(protocol.prompt_setting), iteration, protocol, trainer_of(settings))
    rule, faults = trainable(join, judgment_files, pairs_files, every, kept)
    made = protocol.choice(judgment_files, replace(rule, balance=settings.judging.balance))
    if not made.selected:
        with context.writer(directory, schema_of(settings.train.recipe)) as writer:
            writer.quarantine([fault.record for fault in faults])  # the reasons can be read
        raise RunError(cause(made, faults, len(kept.selected)))
    with context.writer(directory, schema_of(settings.train.recipe)) as writer:
        writer.quarantine([fault.record for fault in faults])
        said = Said()
        for row in streamed(join.rows, plan(pairs_files, made.selected, made.files)):
            writer.add([row])
            said.see(row["completion" if "completion" in row else "chosen"][0]["content"])
    rows, lost = row_counts(directory)
    seconds = time.monotonic() - started
    limit = {"sequence_length": settings.train.sequence_length} if lost else {}
    extra = numbers(made, rows) | said.numbers() | rates | limit
    return StageResult(made.drawn, rows, lost, seconds=seconds, extra=extra)


def rule_of(settings: IterateSettings, iteration: int) -> Rule:
    """How judgments are chosen before any is known to be unfit, and before letters are balanced."""
    judging, dpo = settings.judging, settings.train.dpo
    return Rule(
        settings.seed,
        iteration,
        balance=False,
        recipe=settings.train.recipe,
        max_draws=judging.max_draws,
        min_pass_rate=judging.min_pass_rate,
        pairs_per_prompt=dpo.pairs_per_prompt,
        unparsed_as_wrong=dpo.unparsed_as_wrong,
        min_explanation=judging.min_explanation,
    )


def trainable(
    join: Join, judgment_files: list[str], pairs_files: list[str], rule: Rule, made: Choice
) -> tuple[Rule, list[Fault]]:
    """`rule` without the judgments that cannot be trained on, and these. `made`, which it chooses, is encoded; what
    stands in then for a judgment that cannot be (DPO's wrong ones) is encoded next.
    """
    faults: dict[Judgment, Fault] = {}
    seen: set[tuple[Sample, ...]] = set()
    while chosen := [group for group in made.selected if group not in seen]:
        seen.update(chosen)
        found = {fault.judgment: fault for fault in streamed(join.faults, plan(pairs_files, chosen, made.files))}
        faults |= found
        kept = {group[0].key for group in chosen if group[0].kept}
        lost = frozenset(judgment[:2] for judgment in found if judgment in kept)
        others = frozenset(found.keys() - kept)
        rule = replace(rule, lost=rule.lost | lost, unusable=rule.unusable | others)
        if not others:
            break
        made = join.protocol.choice(judgment_files, rule)
    return rule, list(faults.values())


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
        "pairs": len({group[0].pair_id for group in made.selected}),
    } | ({"dropped_unsure": made.unsure} if made.unsure else {})


def pass_rates_by(selection: Selection, pairs_files: Iterable[str]) -> dict[str, Any]:
    """The pass rate by the pairs' category and complexity. Raises RunError where judgments have lost their pairs."""
    names = ("category", "complexity")
    groups: dict[str, tuple[Any, ...]] = {}
    alike: dict[tuple[Any, ...], tuple[Any, ...]] = {}  # few groups of many pairs: each once in memory
    for file in pairs_files:
        table = read_parquet(file, columns=["pair_id", *names])
        keys = table.column("pair_id").to_pylist()
        of = zip(*(table.column(name).to_pylist() for name in names), strict=True)
        groups |= {key: alike.setdefault(group, group) for key, group in zip(keys, of, strict=True)}
    lost = {identity for identity, _ in selection.first if identity not in groups}
    if lost:
        raise RunError(f"{len(lost)} judged pairs are not in the table of pairs, {min(lost)} among them")
    return {
        f"pass_rate_by_{name}": pass_rates(selection.first, {key: group[index] for key, group in groups.items()})
        for index, name in enumerate(names)
    }


def schema_of(recipe: str) -> pa.Schema:
    return TRAIN_DPO if recipe == "dpo" else TRAIN_SFT
