"""Which rows form which micro-batch of which worker: a pure function of lengths, seed and epoch.

Every worker computes the same plan, so nothing is exchanged, and a resumed run continues at the step it lost.
All workers get the same number of micro-batches in a step (ZeRO's collectives need that).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

MicroBatch = tuple[int, ...]  # units, in the order they are laid down
OPEN_BINS = 64  # first-fit looks at so many open bins: within 1-3 % of full at judgment lengths, and linear in rows


@dataclass(frozen=True)
class Step:
    """One optimizer step: `micro[worker][i]` are the units of that worker's i-th micro-batch (may be empty)."""

    epoch: int
    micro: tuple[tuple[MicroBatch, ...], ...]

    @property
    def units(self) -> list[int]:
        return [unit for worker in self.micro for batch in worker for unit in batch]


@dataclass(frozen=True)
class PlanSettings:
    """What a plan depends on besides the rows."""

    workers: int
    tokens_per_batch: int
    accumulation: int = 1
    batch_rows: int | None = None
    batching: str = "packed"
    seed: int = 0


def plan_epoch(lengths: Sequence[int], settings: PlanSettings, epoch: int) -> list[Step]:
    """The steps of one epoch: every unit once. `lengths` are the tokens of each unit.

    Raises ValueError when a unit alone is longer than the token budget.
    """
    too_long = [unit for unit, length in enumerate(lengths) if length > settings.tokens_per_batch]
    if too_long:
        raise ValueError(f"unit {too_long[0]} has {lengths[too_long[0]]} tokens, more than a micro-batch")
    random = np.random.default_rng([settings.seed & (2**63 - 1), epoch])
    order = [int(unit) for unit in random.permutation(len(lengths))]
    if settings.batch_rows is not None:
        groups = [order[i : i + settings.batch_rows] for i in range(0, len(order), settings.batch_rows)]
        return [_step_of(group, lengths, settings, epoch) for group in groups]
    if settings.batching == "packed":
        batches = pack(order, lengths, settings.tokens_per_batch)
    else:
        batches = bucket(order, lengths, settings.tokens_per_batch)
    per_step = settings.workers * settings.accumulation
    groups_of_batches = [batches[i : i + per_step] for i in range(0, len(batches), per_step)]
    if settings.batching == "bucketed":  # neighbours have like lengths: they share a step, and steps are shuffled
        groups_of_batches = [groups_of_batches[i] for i in random.permutation(len(groups_of_batches))]
    return [Step(epoch, deal(group, settings.workers)) for group in groups_of_batches]


def _step_of(group: list[int], lengths: Sequence[int], settings: PlanSettings, epoch: int) -> Step:
    make = pack if settings.batching == "packed" else bucket
    shares = [group[worker :: settings.workers] for worker in range(settings.workers)]
    batches = [make(share, lengths, settings.tokens_per_batch) for share in shares]
    rounds = max(1, *(len(own) for own in batches))
    return Step(epoch, tuple((*own, *[()] * (rounds - len(own))) for own in batches))


def pack(order: Sequence[int], lengths: Sequence[int], budget: int) -> list[MicroBatch]:
    """Fill micro-batches of at most `budget` tokens, first fit over the last `OPEN_BINS` open ones."""
    closed: list[list[int]] = []
    bins: list[list[int]] = []
    free: list[int] = []
    for unit in order:
        slot = next((i for i, room in enumerate(free) if room >= lengths[unit]), None)
        if slot is None:
            if len(bins) == OPEN_BINS:
                closed.append(bins.pop(0))
                free.pop(0)
            bins.append([])
            free.append(budget)
            slot = len(bins) - 1
        bins[slot].append(unit)
        free[slot] -= lengths[unit]
    return [tuple(batch) for batch in closed + bins]


def bucket(order: Sequence[int], lengths: Sequence[int], budget: int) -> list[MicroBatch]:
    """Micro-batches of rows of like length: rows × longest row ≤ `budget` (padding counts)."""
    batches: list[MicroBatch] = []
    current: list[int] = []
    for unit in sorted(order, key=lambda u: -lengths[u]):
        longest = lengths[current[0]] if current else lengths[unit]
        if current and (len(current) + 1) * longest > budget:
            batches.append(tuple(current))
            current = []
        current.append(unit)
    return [*batches, tuple(current)] if current else batches


def deal(batches: Sequence[MicroBatch], workers: int) -> tuple[tuple[MicroBatch, ...], ...]:
    """Deal micro-batches to workers in turn; short workers get empty ones, so that all have the same number."""
    rounds = max(1, math.ceil(len(batches) / workers))
    padded = [*batches, *[()] * (rounds * workers - len(batches))]
    return tuple(tuple(padded[worker::workers]) for worker in range(workers))


def total_steps(lengths: Sequence[int], settings: PlanSettings, epochs: int, max_steps: int | None) -> int:
    """Optimizer steps of a whole run."""
    steps = sum(len(plan_epoch(lengths, settings, epoch)) for epoch in range(epochs))
    return steps if max_steps is None else min(steps, max_steps)
