"""RM-Bench (arXiv 2410.16184): a prompt with three chosen and three rejected responses, each in three styles.

Every chosen response is compared with every rejected one: nine comparisons a question. How hard one is depends on the
styles: `easy` where the chosen response has the more elaborate one, `normal` where both have the same, `hard` where the
rejected response has. The id of a comparison names the two styles, chosen first (`17/concise-markdown`), its subset the
domain and the level (`chat-hard`). Which response is response_a is a hash bit of the id.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ray_app.base.schema import content_id
from ray_app.benchmarks.base import ID, TEXT, Faulty, Ids, Item, Spec, chosen_rejected_item
from ray_app.benchmarks.files import Numbered

NAME = "rmbench"
STYLES = ("concise", "detailed", "markdown")  # in the data set's order: detailed is plain text, markdown is as long
LEVELS = ("hard", "normal", "easy")
DOMAINS = ("chat", "math", "code", "safety")
# Questions of the published set; both halves of safety are one domain.
QUESTIONS = {"chat": 129, "math": 529, "code": 228, "safety-refuse": 284, "safety-response": 157}


def parse(rows: Iterator[Numbered]) -> Iterator[Item]:
    """Nine items a row."""
    ids = Ids()
    for numbered in rows:
        identity = ids.own(numbered.row.get("id"), numbered.where)
        yield from _comparisons(identity, numbered.row)


def level_of(chosen: int, rejected: int) -> str:
    """How hard it is to prefer a chosen response of one style to a rejected one of another."""
    return LEVELS[1 + (chosen > rejected) - (chosen < rejected)]


def cell_of(subset: str) -> tuple[str, str] | None:
    """(domain, level) of a subset's name; None where it names no domain and level of RM-Bench."""
    domain, _, level = subset.rpartition("-")
    known = next((name for name in DOMAINS if domain == name or domain.startswith(f"{name}-")), None)
    return (known, level) if known and level in LEVELS else None


def styles_of(id: str) -> tuple[str, str] | None:
    """(style of the chosen response, of the rejected one) in the id of a comparison; None for any other id."""
    chosen, _, rejected = id.rpartition("/")[2].partition("-")
    return (chosen, rejected) if chosen in STYLES and rejected in STYLES else None


def subset_of(name: str) -> str:
    """`Chat/Hard` and `chat-hard` are one subset."""
    plain = name.lower().replace("/", "-").replace(" ", "-")
    return plain if cell_of(plain) else name


def _comparisons(identity: str, row: dict[str, Any]) -> Iterator[Item]:
    chosen, rejected = row.get("chosen") or [], row.get("rejected") or []
    whole = len(chosen) == len(rejected) == len(STYLES)
    for i, chosen_style in enumerate(STYLES):
        for j, rejected_style in enumerate(STYLES):
            id, subset = f"{identity}/{chosen_style}-{rejected_style}", f"{row.get('domain') or ''}-{level_of(i, j)}"
            if whole:
                yield chosen_rejected_item(NAME, id, subset, row.get("prompt"), chosen[i], rejected[j])
            else:  # all nine are lost, so that n stays what the file says
                detail = f"{len(chosen)} chosen and {len(rejected)} rejected responses, not {len(STYLES)} of each"
                yield Faulty(id, subset, content_id(row.get("prompt")), "bad_styles", detail)


SPEC = Spec(
    name=NAME,
    required={"id": ID, "prompt": TEXT, "chosen": list, "rejected": list, "domain": str},
    parse=parse,
    hub=("THU-KEG/RM-Bench", None, ("train",)),
    subset=subset_of,
)
