"""What a loaded benchmark is, and the checks every loader puts a row through. Pure.

A loader turns raw rows into items: a `PairwiseRow`, `BestOfRow` or `RatedRow` to judge, a `Faulty` row to quarantine,
or a `Dropped` one that the benchmark itself leaves out (a human tie).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, cast

from ray_app.base.schema import Letter, PairwiseRow, Text, content_id, unit_interval
from ray_app.base.texts import as_text, text_fault
from ray_app.benchmarks.files import Numbered, Types
from ray_app.benchmarks.store import RowStore
from ray_app.errors import InputError

STAGE = "evaluation"
TEXT: Types = (str, list)
ID: Types = (str, int)
LETTERS: Mapping[bool, Letter] = {True: "A", False: "B"}


@dataclass(frozen=True)
class BestOfRow:
    """A row with several responses: the first `num_correct` are correct, the others wrong (RewardBench 2)."""

    id: str
    subset: str
    instruction: Text
    responses: tuple[str, ...]
    num_correct: int
    group: str


@dataclass(frozen=True)
class RatedRow:
    """A single response with a human score, on any scale."""

    id: str
    subset: str
    instruction: Text
    response: Text
    score: float
    group: str


@dataclass(frozen=True)
class Faulty:
    """A row that cannot be judged. It still counts: its id appears in every verdict file as unparsed."""

    id: str
    subset: str
    group: str
    reason: str
    detail: str


@dataclass(frozen=True)
class Dropped:
    """A row the benchmark's own definition leaves out."""

    reason: str


Item = PairwiseRow | BestOfRow | RatedRow | Faulty | Dropped


@dataclass(frozen=True)
class Spec:
    """One benchmark: its raw columns, its parser, and how it spells subsets of the common pairwise form."""

    name: str
    required: Mapping[str, Types]
    parse: Callable[[Iterator[Numbered]], Iterator[Item]]
    hub: tuple[str, str | None, tuple[str, ...]] | None = None  # (dataset id, config, splits)
    subset: Callable[[str], str] = field(default=lambda name: name)
    rated: bool = False  # single responses with human scores: never the common pairwise form
    parts: tuple[str, ...] = ()  # dataset ids, read one after the other, where `hub` stands for several


@dataclass(frozen=True)
class Benchmark:
    """A loaded benchmark. `n_in` counts raw rows or votes read, before ties were dropped.

    Exactly one of `rows` (response pairs), `best_of` (RewardBench 2 in its own form) and `rated` (single responses with
    human scores) holds the rows.
    """

    name: str
    rows: Sequence[PairwiseRow]
    n_in: int
    faulty: tuple[Faulty, ...] = ()
    best_of: tuple[BestOfRow, ...] = ()
    rated: tuple[RatedRow, ...] = ()
    dropped: Mapping[str, int] = field(default_factory=dict)
    source: str = ""
    spec: str = "pairwise"  # which benchmark's rules score it
    beyond: frozenset[str] = frozenset()  # ids of scored rows after the limit, where they were asked for

    @property
    def kind(self) -> Literal["pairwise", "best_of", "rated"]:
        return "best_of" if self.best_of else "rated" if self.rated else "pairwise"

    @property
    def quarantined(self) -> list[dict[str, str]]:
        """Rows of the quarantine table: id, stage, reason, detail."""
        return [{"id": f.id, "stage": STAGE, "reason": f.reason, "detail": f.detail} for f in self.faulty]

    @property
    def n(self) -> int:
        """Rows that are scored: judged ones and quarantined ones, which count as unparsed."""
        return len(self.rows) + len(self.best_of) + len(self.rated) + len(self.faulty)

    def ids(self) -> list[str]:
        """Ids of the judged rows in the file's order, then of those that the loader quarantined."""
        return [row.id for row in self.rows] + [fault.id for fault in self.faulty]

    def instructions(self) -> Iterator[Text]:
        """Every instruction, for decontamination."""
        yield from (row.instruction for row in self.rows)
        yield from (row.instruction for row in self.best_of)
        yield from (row.instruction for row in self.rated)


def collect(
    name: str, spec: str, source: str, items: Iterable[Item], limit: int | None, all_ids: bool = False
) -> Benchmark:
    """Gather a loader's items, the first `limit` scored rows of them. Raises InputError when none is left.

    `all_ids` reads on after the limit, for the ids alone.
    """
    store, best_of, rated, faulty = RowStore(), [], [], []
    dropped: Counter[str] = Counter()
    n_in = 0
    stream = iter(items)
    for item in stream:
        n_in += 1
        if isinstance(item, PairwiseRow):
            store.append(item)
        elif isinstance(item, BestOfRow):
            best_of.append(item)
        elif isinstance(item, RatedRow):
            rated.append(item)
        elif isinstance(item, Faulty):
            faulty.append(item)
        else:
            dropped[item.reason] += 1
        if limit is not None and len(store) + len(best_of) + len(rated) + len(faulty) >= limit:
            break
    beyond = frozenset(item.id for item in stream if not isinstance(item, Dropped)) if all_ids else frozenset()
    if len(store) + len(best_of) + len(rated) == 0:
        causes = Counter(f.reason for f in faulty) + dropped
        raise InputError(f"{source} holds no row to judge: " + ", ".join(f"{n} {r}" for r, n in causes.items()))
    found = Benchmark(name, store.freeze(), n_in, tuple(faulty), tuple(best_of), tuple(rated))
    return replace(found, dropped=dict(dropped), source=source, spec=spec, beyond=beyond)


def pairwise_item(
    id: str,
    subset: str,
    instruction: Any,
    responses: tuple[Any, Any],
    label: Any,
    *,
    labelled: bool = True,
    group: str | None = None,
) -> PairwiseRow | Faulty:
    """A checked row. The cluster key is the hash of the instruction unless `group` says another."""
    reason, detail = _fault(instruction, responses, label, labelled)
    key = group or content_id(instruction if text_fault(instruction) else as_text(instruction))
    if reason:
        return Faulty(id, subset, key, reason, detail[:500])
    texts = [as_text(value) for value in (instruction, *responses)]
    return PairwiseRow(id, subset, texts[0], texts[1], texts[2], cast(Letter | None, label), key)


def chosen_rejected_item(
    name: str, id: str, subset: str, instruction: Any, chosen: Any, rejected: Any, group: str | None = None
) -> PairwiseRow | Faulty:
    """A row of a chosen/rejected set; a hash of its id says which is response_a, so "always A" gets half. `group`: the
    cluster key, where it is not the hash of the instruction.
    """
    first = unit_interval("side", name, id) < 0.5
    responses = (chosen, rejected) if first else (rejected, chosen)
    return pairwise_item(id, subset, instruction, responses, LETTERS[first], group=group)


class Ids:
    """Ids seen so far: a user's own id may occur once, a derived id gets a running suffix."""

    def __init__(self) -> None:
        self.seen: Counter[str] = Counter()

    def own(self, value: Any, where: str) -> str:
        """A file's own id as text. Raises InputError for a missing or repeated one (faults of the file)."""
        if value is None or value == "":
            raise InputError(f"{where} column 'id' is empty")
        if self.seen[str(value)]:
            raise InputError(f"{where}: id {str(value)[:80]!r} occurs twice")
        self.seen[str(value)] += 1
        return str(value)

    def derived(self, value: str) -> str:
        """A derived id, `#2` and so on for the second row with the same content."""
        self.seen[value] += 1
        return value if self.seen[value] == 1 else f"{value}#{self.seen[value]}"


def _fault(instruction: Any, responses: tuple[Any, Any], label: Any, labelled: bool) -> tuple[str, str]:
    named = (("instruction", instruction), ("response_a", responses[0]), ("response_b", responses[1]))
    for name, value in named:
        fault = text_fault(value)
        if fault:
            return f"{fault}_{name}" if fault == "empty" else fault, f"{name}: {value!r}"
    if label is None:
        return ("no_label", "label is null") if labelled else ("", "")
    return ("", "") if label in ("A", "B") else ("bad_label", f"label {label!r} is neither A nor B")
