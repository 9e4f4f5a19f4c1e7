"""Single responses with human scores, for the correlation of a pointwise judge with them: {"id", "subset"?,
"instruction", "response", "score"}, JSONL or Parquet, the score a number on any scale (higher is better).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ray_app.base.schema import content_id
from ray_app.base.texts import as_text, text_fault
from ray_app.benchmarks.base import ID, TEXT, Faulty, Ids, Item, RatedRow, Spec
from ray_app.benchmarks.files import Numbered

NAME = "rated"


def parse(rows: Iterator[Numbered]) -> Iterator[Item]:
    """One item a response."""
    ids = Ids()
    for numbered in rows:
        row = numbered.row
        identity = ids.own(row.get("id"), numbered.where)
        yield rated_item(identity, row.get("subset") or "", row.get("instruction"), row.get("response"), row["score"])


def rated_item(identity: str, subset: Any, instruction: Any, response: Any, score: Any) -> RatedRow | Faulty:
    """A checked row; its cluster is the instruction."""
    named = (("instruction", instruction), ("response", response))
    found = next(((name, fault, value) for name, value in named if (fault := text_fault(value))), None)
    group = content_id(instruction if text_fault(instruction) else as_text(instruction))
    if found is not None:
        name, fault, value = found
        return Faulty(
            identity, str(subset), group, f"{fault}_{name}" if fault == "empty" else fault, f"{name}: {value!r}"[:500]
        )
    if score is None:
        return Faulty(identity, str(subset), group, "no_score", "score is null")
    return RatedRow(identity, str(subset), as_text(instruction), as_text(response), float(score), group)


SPEC = Spec(
    name=NAME,
    required={"id": ID, "instruction": TEXT, "response": TEXT, "score": float},
    parse=parse,
    rated=True,
)
