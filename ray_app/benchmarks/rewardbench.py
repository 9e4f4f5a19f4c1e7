"""RewardBench v1 (arXiv 2403.13787): prompt, chosen, rejected, subset, id; 23 subsets.

Which of the two is response_a is a hash bit of the id, the same in every run.

The six `hep-*` subsets are the same 164 problems in six languages (HumanEvalPack, arXiv 2308.07124), so rows of one
problem are one cluster of the intervals. Neither ids nor texts tell the problem, but the function's name does: "Write a
Go function `func HasCloseElements(…) bool` to solve …", "… JavaScript function `const hasCloseElements = (…)` to …". In
HumanEvalPack's 984 rows 154 problems have one name in all languages, 10 have two, and nine names are of two problems.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from ray_app.base.schema import content_id
from ray_app.benchmarks.base import ID, TEXT, Ids, Item, Spec, chosen_rejected_item
from ray_app.benchmarks.files import Numbered

NAME = "rewardbench"
CODE = "hep-"
# The name before the first bracket of a signature, as in "bool name(", "const name = (" and "name<'a>(".
_FUNCTION = re.compile(r"`[^`(]*?(\w+)(?:<[^`(>]*>)?\s*(?:=\s*)?\(")


def parse(rows: Iterator[Numbered]) -> Iterator[Item]:
    """One item a row; `id` is the data set's own, an incremented number."""
    ids = Ids()
    for numbered in rows:
        row = numbered.row
        identity = ids.own(row.get("id"), numbered.where)
        subset, prompt = row.get("subset") or "", row.get("prompt")
        yield chosen_rejected_item(
            NAME, identity, subset, prompt, row.get("chosen"), row.get("rejected"), problem(subset, prompt)
        )


def problem(subset: str, prompt: Any) -> str | None:
    """The cluster of a row of code, the same in every language; None for others, and where no function is named. Rust
    tells functions of one name apart by a number (`solve_161`), which is left out.
    """
    named = _FUNCTION.search(prompt) if subset.startswith(CODE) and isinstance(prompt, str) else None
    return content_id([CODE, named[1].rstrip("0123456789").replace("_", "").casefold()]) if named else None


SPEC = Spec(
    name=NAME,
    required={"id": ID, "subset": str, "prompt": TEXT, "chosen": TEXT, "rejected": TEXT},
    parse=parse,
    hub=("allenai/reward-bench", None, ("filtered",)),
)
