"""RewardBench 2 (arXiv 2506.01937): best of four, and a Ties subset with several correct responses.

Its own form gives `BestOfRow`s (one correct response first, then the wrong ones; Ties keep all their correct
ones). A file in the common pairwise form is scored as pairs under RewardBench 2's subset names.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ray_app.base.schema import content_id, derive_seed
from ray_app.base.texts import text_fault
from ray_app.benchmarks.base import ID, TEXT, BestOfRow, Faulty, Ids, Item, Spec
from ray_app.benchmarks.files import Numbered

NAME = "rewardbench2"
ROWS = {"Factuality": 475, "Precise IF": 160, "Math": 183, "Safety": 450, "Focus": 495, "Ties": 102}  # published
SUBSETS = tuple(ROWS)
TIES = "Ties"
OPTIONS = 4


def parse(rows: Iterator[Numbered]) -> Iterator[Item]:
    """One item a row. A Ties id is `ref:N` (one correct response) or `tied:N` (several) of question N."""
    ids = Ids()
    for numbered in rows:
        row = numbered.row
        yield _item(ids.own(row.get("id"), numbered.where), row)


def subset_of(name: str) -> str:
    """Any capitalisation of a subset name as the official one."""
    return next((subset for subset in SUBSETS if subset.lower() == name.lower()), name)


def shown_order(row: BestOfRow, run_seed: int) -> tuple[int, ...]:
    """Indices into `row.responses` in the order shown as A, B, C, D.

    As in the official script the correct one trades places with a random one; here the draw is seeded by the
    id.
    """
    order = list(range(len(row.responses)))
    place = derive_seed(run_seed, 0, "rewardbench2", row.id, "", 0) % len(order)
    order[0], order[place] = order[place], order[0]
    return tuple(order)


def _item(identity: str, row: dict[str, Any]) -> Item:
    subset = subset_of(row.get("subset") or "")
    group = content_id(row.get("prompt"))
    if subset == TIES:
        group = content_id([TIES, identity.split(":")[-1]])
    fault = _fault(identity, subset, row)
    if fault is not None:
        return Faulty(identity, subset, group, *fault)
    chosen, rejected = row["chosen"], row["rejected"]
    if subset != TIES:
        chosen, rejected = chosen[:1], rejected[: OPTIONS - 1]
    return BestOfRow(identity, subset, row["prompt"], (*chosen, *rejected), len(chosen), group)


def _fault(identity: str, subset: str, row: dict[str, Any]) -> tuple[str, str] | None:
    chosen, rejected = row.get("chosen") or [], row.get("rejected") or []
    if text_fault(row.get("prompt")):
        return "empty_instruction", f"prompt: {row.get('prompt')!r}"[:500]
    if not all(isinstance(r, str) and r.strip() for r in (*chosen, *rejected)):
        return "empty_response", "a response is empty or not a text"
    fewest = 1 if subset == TIES else OPTIONS - 1
    if not chosen or len(rejected) < fewest:
        return "too_few_responses", f"{len(chosen)} chosen and {len(rejected)} rejected responses"
    declared = row.get("num_correct")
    if declared is not None and declared != len(chosen):
        return "bad_num_correct", f"num_correct is {declared}, chosen holds {len(chosen)}"
    kind, _, question = identity.partition(":")
    if subset == TIES and (kind not in ("ref", "tied") or not question):
        return "bad_ties_id", f"id {identity!r} is neither ref:N nor tied:N"
    return None


SPEC = Spec(
    name=NAME,
    required={"id": ID, "subset": str, "prompt": TEXT, "chosen": list, "rejected": list},
    parse=parse,
    hub=("allenai/reward-bench-2", None, ("test",)),
    subset=subset_of,
)
