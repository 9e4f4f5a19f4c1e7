"""Units of judging work from pairs and from pairwise rows. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ray_app.prompts import Prompt
from ray_app.schema import AB, BA, CHOSEN_FIRST, REJECTED_FIRST, Message, PairwiseRow, pack_text, unpack_text

TURNED = {"A": "B", "B": "A", None: None}


def pair_units(pair: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Both orders of a pair of the run: chosen first (gold A), rejected first (gold B)."""
    for order in (CHOSEN_FIRST, REJECTED_FIRST):
        sides = (pair["chosen"], pair["rejected"])
        first, second = sides if order == CHOSEN_FIRST else sides[::-1]
        yield {
            "id": pair["pair_id"],
            "pair_id": pair["pair_id"],
            "order": order,
            "instruction": pair["instruction"],
            "first": first,
            "second": second,
            "gold": "A" if order == CHOSEN_FIRST else "B",
        }


def pairwise_units(benchmark: str, row: PairwiseRow, orders: tuple[str, ...] = (AB, BA)) -> Iterator[dict[str, Any]]:
    """The asked orders of one row of a pairwise file; gold is None where the row has no label."""
    a, b = pack_text(row.response_a), pack_text(row.response_b)
    for order in orders:
        yield {
            "benchmark": benchmark,
            "id": row.id,
            "order": order,
            "instruction": pack_text(row.instruction),
            "first": a if order == AB else b,
            "second": b if order == AB else a,
            "gold": row.label if order == AB else TURNED[row.label],
        }


def judge_messages(prompt: Prompt, unit: Mapping[str, Any]) -> list[Message]:
    """The messages a judge sees for one unit; training renders the very same."""
    return prompt.render(
        instruction=unpack_text(unit["instruction"]),
        response_a=unpack_text(unit["first"]),
        response_b=unpack_text(unit["second"]),
    )
