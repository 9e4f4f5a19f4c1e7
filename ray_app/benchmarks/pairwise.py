"""Any file in the common pairwise form: id, subset?, instruction, response_a, response_b, label? (A or B).

Of pairs that the loop has made also group?, mirror? and similarity? (`PairwiseRow`).

Every benchmark's loader takes this form too, with the benchmark's own subset names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, replace
from typing import Any

from ray_app.base.schema import PairwiseRow
from ray_app.benchmarks.base import ID, TEXT, Ids, Item, Spec, pairwise_item
from ray_app.benchmarks.files import Numbered, Types

REQUIRED: Mapping[str, Types] = {"id": ID, "instruction": TEXT, "response_a": TEXT, "response_b": TEXT}
OPTIONAL: Mapping[str, Types] = {"subset": str, "label": str, "group": str, "mirror": str, "similarity": (float, int)}


def is_common_form(columns: set[str]) -> bool:
    """Whether a file's columns are those of the common form rather than a benchmark's own."""
    return {"response_a", "response_b"} <= columns


def parse(
    rows: Iterator[Numbered], labelled: bool = True, subset_of: Callable[[str], str] = lambda name: name
) -> Iterator[Item]:
    """Items of a file in the common form. Without `labelled` a null label is no fault (judging only)."""
    ids = Ids()
    for numbered in rows:
        row = numbered.row
        item = pairwise_item(
            ids.own(row.get("id"), numbered.where),
            subset_of(row.get("subset") or ""),
            row.get("instruction"),
            (row.get("response_a"), row.get("response_b")),
            row.get("label"),
            labelled=labelled,
            group=row.get("group"),
        )
        own = {name: row[name] for name in ("mirror", "similarity") if row.get(name) is not None}
        yield replace(item, **own) if own and isinstance(item, PairwiseRow) else item


def record(row: PairwiseRow) -> dict[str, Any]:
    """A row as a file in the common form has it."""
    return {name: value for name, value in asdict(row).items() if value is not None}


SPEC = Spec(name="pairwise", required=REQUIRED, parse=parse)
