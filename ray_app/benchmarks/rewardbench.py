"""RewardBench v1 (arXiv 2403.13787): prompt, chosen, rejected, subset, id; 23 subsets.

Which of the two is response_a is a hash bit of the id, the same in every run.
"""

from __future__ import annotations

from collections.abc import Iterator

from ray_app.benchmarks.base import ID, TEXT, Ids, Item, Spec, chosen_rejected_item
from ray_app.benchmarks.files import Numbered

NAME = "rewardbench"


def parse(rows: Iterator[Numbered]) -> Iterator[Item]:
    """One item a row; `id` is the data set's own, an incremented number."""
    ids = Ids()
    for numbered in rows:
        row = numbered.row
        identity = ids.own(row.get("id"), numbered.where)
        yield chosen_rejected_item(
            NAME, identity, row.get("subset") or "", row.get("prompt"), row.get("chosen"), row.get("rejected")
        )


SPEC = Spec(
    name=NAME,
    required={"id": ID, "subset": str, "prompt": TEXT, "chosen": TEXT, "rejected": TEXT},
    parse=parse,
    hub=("allenai/reward-bench", None, ("filtered",)),
)
