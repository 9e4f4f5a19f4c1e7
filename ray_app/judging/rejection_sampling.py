"""Rejection sampling's decisions over the judgments of one iteration: which of them are trained on.

choose, choose_scored       what is selected of the judgments in a stage's shards, pairwise and pointwise
select, select_scored, …    the decisions themselves: pure, keys and letters in, keys out
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from ray_app.base.schema import unit_interval
from ray_app.base.verdict import first_win
from ray_app.judging.samples import Judgment, Places, Sample, Unit, place, read_samples
from ray_app.run.storage import read_parquet

SCORE_KEYS = ["pair_id", "side", "sample", "score"]


@dataclass(frozen=True)
class Selection:
    """What goes into the training set, and the numbers that explain it."""

    rows: tuple[Sample, ...]
    tried: int  # (pair, order) judged
    kept: int  # of those, with a correct judgment
    kept_by_letter: dict[str, int]
    dropped_by_balance: int
    first: tuple[tuple[str, bool], ...]  # (pair_id, whether sample 0 is correct) of every (pair, order) judged

    @property
    def pass_rate(self) -> float | None:
        """Share of (pair, order) whose sample 0 is correct: hits pooled over all draws would be biased."""
        return sum(correct for _, correct in self.first) / len(self.first) if self.first else None

    @property
    def keep_rate(self) -> float | None:
        return self.kept / self.tried if self.tried else None


@dataclass(frozen=True)
class Choice:
    """What was drawn, what is selected of it, and where its texts are ({pair_id: judgment files})."""

    selection: Selection
    selected: Sequence[tuple[Sample, ...]]
    files: Places
    drawn: int
    empty_cause: str
    unsure: int = 0  # units with a kept judgment that were too seldom right to train on


@dataclass(frozen=True)
class Rule:
    """How judgments are chosen. `lost`: units whose kept judgment cannot be trained on; `unusable`: other judgments of
    which that is so.
    """

    seed: int
    iteration: int
    balance: bool
    recipe: str
    lost: frozenset[Unit] = frozenset()
    max_draws: int | None = None  # units whose kept sample came later are not trained on
    min_pass_rate: float = 0.0  # nor those of which a smaller share of the samples is correct
    unusable: frozenset[Judgment] = frozenset()
    pairs_per_prompt: int = 1  # DPO: preferences of one unit at most
    unparsed_as_wrong: bool = False  # DPO: whether a judgment without a verdict may be the rejected one
    min_explanation: int = 0  # words besides the verdict that a chosen judgment must have


def unsure(samples: Iterable[Sample], rule: Rule) -> frozenset[Unit]:
    """Units that were too seldom right to trust their one right judgment: it may have been a guess, or their label may
    be wrong.
    """
    if rule.max_draws is None and rule.min_pass_rate <= 0:
        return frozenset()
    drawn, right, late = Counter[Unit](), Counter[Unit](), set[Unit]()
    for sample in samples:
        drawn[sample.unit] += 1
        right[sample.unit] += sample.correct
        if sample.kept and rule.max_draws is not None and sample.sample >= rule.max_draws:
            late.add(sample.unit)
    seldom = {unit for unit, count in drawn.items() if right[unit] / count < rule.min_pass_rate}
    return frozenset(late | seldom)


def choose(judgment_files: Iterable[str], rule: Rule) -> Choice:
    """Pairwise: balanced letters for SFT, (correct, wrong) for DPO; of the units that are not lost."""
    several = rule.recipe == "dpo" and rule.pairs_per_prompt > 1
    samples, files = read_samples(judgment_files, rule.min_explanation if several else 0)
    doubtful = unsure(samples, rule)
    doubtful = doubtful and doubtful & {s.unit for s in samples if s.kept}
    rule = replace(rule, lost=rule.lost | doubtful)
    selection = select(samples, rule.seed, rule.iteration, rule.balance, rule.lost)
    selected: Sequence[tuple[Sample, ...]] = [(sample,) for sample in selection.rows]
    unbalanced: list[tuple[Sample, Sample]] = []
    if rule.recipe == "dpo":
        usable = [s for s in samples if s.unit not in rule.lost]
        selected = preferences(usable, rule)
        unbalanced = preferences(usable, replace(rule, balance=False))
        selection = replace(selection, dropped_by_balance=len(unbalanced) - len(selected))
    cause = empty_cause(selection, sum(s.verdict is None for s in samples), len(samples))
    if rule.recipe == "dpo" and selection.kept:
        cause = empty_preferences_cause(selection, unbalanced)
    cause += left_out(len(doubtful))
    return Choice(selection, selected, files, len(samples), cause, len(doubtful))


def left_out(units: int) -> str:
    """What the cause of an empty set says of units that were too seldom right."""
    return f"; {units} were left out by judging.max_draws and judging.min_pass_rate" if units else ""


def choose_scored(judgment_files: Iterable[str], rule: Rule) -> Choice:
    """Pointwise: both judgments of the first sample whose chosen score is higher."""
    drawn: dict[str, dict[int, dict[str, float | None]]] = defaultdict(lambda: defaultdict(dict))
    files: dict[str, tuple[str, ...]] = {}
    unparsed = rows = 0
    for file in judgment_files:
        alone = (file,)
        for row in read_parquet(file, columns=SCORE_KEYS).to_pylist():
            drawn[row["pair_id"]][row["sample"]][row["side"]] = row["score"]
            place(files, row["pair_id"], alone)
            unparsed, rows = unparsed + (row["score"] is None), rows + 1
    scores = {
        identity: [(samples[j].get("chosen"), samples[j].get("rejected")) for j in sorted(samples)]
        for identity, samples in drawn.items()
    }
    selection = select_scored(scores)
    cause = empty_scored_cause(selection, unparsed, rows)
    gone = {unit[0] for unit in rule.lost}  # with one of a pair's judgments goes the other: better and worse stay equal
    latest = rule.max_draws
    late = {row.pair_id for row in selection.rows if latest is not None and row.sample >= latest}
    kept = [row for row in selection.rows if row.pair_id not in gone | late]
    selected = [(row,) for row in kept]
    return Choice(replace(selection, rows=tuple(kept)), selected, files, rows, cause + left_out(len(late)), len(late))


def select(
    samples: Iterable[Sample], run_seed: int, iteration: int, balance: bool = True, lost: Collection[Unit] = ()
) -> Selection:
    """The kept judgments that can be trained on, with equal numbers of A and B unless `balance` is off."""
    seen = list(samples)
    kept = [s for s in seen if s.kept]
    usable = [s for s in kept if s.unit not in lost]
    rows = balanced(usable, run_seed, iteration) if balance else sorted(usable)
    units = {s.unit for s in seen}
    return Selection(
        rows=tuple(rows),
        tried=len(units),
        kept=len(kept),
        kept_by_letter=dict(Counter(str(s.verdict) for s in kept)),
        dropped_by_balance=len(usable) - len(rows),
        first=tuple((s.pair_id, s.correct) for s in seen if s.sample == 0),
    )


def pass_rates(
    first: Iterable[tuple[str, bool]], group_of: Mapping[str, str | int | None]
) -> dict[str, dict[str, float]]:
    """{group: {"value": pass rate, "n": (pair, order) judged}} of `Selection.first`; no group is `unknown`."""
    found: dict[str | int | None, list[bool]] = defaultdict(list)
    for pair, correct in first:
        found[group_of[pair]].append(correct)
    groups = sorted(found, key=lambda group: (group is None, isinstance(group, str), group))
    return {
        "unknown" if group is None else str(group): {"value": sum(right) / len(right), "n": len(right)}
        for group in groups
        for right in (found[group],)
    }


def balanced(kept: Iterable[Sample], run_seed: int, iteration: int) -> list[Sample]:
    """Equal numbers of A and B: the surplus letter loses its rows of highest seeded hash."""
    by_letter: dict[str, list[Sample]] = {"A": [], "B": []}
    for sample in kept:
        by_letter[str(sample.verdict)].append(sample)
    size = min(len(rows) for rows in by_letter.values())
    for rows in by_letter.values():
        rows.sort(key=lambda s: unit_interval("balance", run_seed, iteration, s.pair_id, s.order))
    return sorted(row for rows in by_letter.values() for row in rows[:size])


def preferences(samples: Iterable[Sample], rule: Rule) -> list[tuple[Sample, Sample]]:
    """DPO's (correct, wrong) judgments of the same prompt: the kept one, and wrong ones by seeded hash.

    With `pairs_per_prompt` other correct ones are chosen too, by sample and each once, so that a chosen judgment names
    its row; wrong ones take turns. Balanced by the correct one's letter, unless `balance` is off. By default an
    unparsed judgment is no rejected answer: it teaches format, not judgment.
    """
    right: dict[Unit, list[Sample]] = defaultdict(list)
    wrong: dict[Unit, list[Sample]] = defaultdict(list)
    kept: dict[Unit, Sample] = {}
    for sample in samples:
        if sample.kept:
            kept[sample.unit] = sample
        elif sample.key in rule.unusable:
            continue
        elif not sample.correct and (sample.verdict is not None or rule.unparsed_as_wrong):
            wrong[sample.unit].append(sample)
        elif sample.correct and not sample.bare:
            right[sample.unit].append(sample)
    partners: dict[Sample, Sample] = {}
    for unit, first in kept.items():
        rejected = sorted(wrong[unit], key=lambda s: unit_interval("wrong", rule.seed, rule.iteration, *s.key))
        for number, chosen in enumerate([first, *sorted(right[unit])][: rule.pairs_per_prompt] if rejected else ()):
            partners[chosen] = rejected[number % len(rejected)]
    rows = balanced(partners, rule.seed, rule.iteration) if rule.balance else sorted(partners)
    return [(sample, partners[sample]) for sample in rows]


def select_scored(scores: Mapping[str, Sequence[tuple[float | None, float | None]]]) -> Selection:
    """Pointwise rejection sampling: {pair_id: (chosen's, rejected's score) by sample} to two judgments a kept pair.

    There is no letter to balance: each kept pair gives one judgment of a better and one of a worse response. A pair
    passes where its sample 0 puts the chosen side higher.
    """
    wins = {identity: first_win(samples) for identity, samples in scores.items()}
    rows = [
        Sample(identity, side, won, None, True, True)
        for identity, won in sorted(wins.items())
        if won is not None
        for side in ("chosen", "rejected")
    ]
    return Selection(
        rows=tuple(rows),
        tried=len(scores),
        kept=len(rows) // 2,
        kept_by_letter={},
        dropped_by_balance=0,
        first=tuple((identity, won == 0) for identity, won in wins.items()),
    )


def empty_scored_cause(selection: Selection, unparsed: int, drawn: int) -> str:
    """Why a pointwise training set is empty, in numbers."""
    return (
        f"the training set is empty: {selection.tried} pairs judged with {drawn} scores, {unparsed} of them unparsed; "
        "in none did the chosen response score higher. A judge that gives every response one score, or never ends "
        "in a score, leaves nothing to train on"
    )


def empty_preferences_cause(selection: Selection, unbalanced: Sequence[tuple[Sample, Sample]]) -> str:
    """Why there is no preference to train on though there are right judgments, in numbers."""
    letters = Counter(str(chosen.verdict) for chosen, _ in unbalanced)
    both = ", ".join(f"{n} {letter}" for letter, n in sorted(letters.items())) or "none"
    return (
        f"the training set is empty: of {selection.tried} (pair, order) {selection.kept} have a right judgment; with a "
        f"wrong one beside it, by the letter of the right one: {both}. A preference needs both, and balancing needs "
        "both letters: draw more samples with judging.sampling all, or set train.dpo.unparsed_as_wrong or "
        "judging.balance false"
    )


def empty_cause(selection: Selection, unparsed: int, drawn: int) -> str:
    """Why a training set is empty, in numbers."""
    letters = ", ".join(f"{n} {letter}" for letter, n in sorted(selection.kept_by_letter.items())) or "none"
    return (
        f"the training set is empty: {selection.tried} (pair, order) judged with {drawn} samples, "
        f"{unparsed} of them unparsed; kept before balancing: {letters}. A judge that names one letter only, or "
        "that never ends in [[A]] or [[B]], leaves nothing to train on"
    )
