"""Units of judging work from pairs and from pairwise rows. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ray_app.base.prompts import Prompt
from ray_app.base.schema import AB, BA, CHOSEN_FIRST, REJECTED_FIRST, Message, PairwiseRow, pack_text, unpack_text

TURNED = {"A": "B", "B": "A", None: None}
SIDES = ("chosen", "rejected")


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


def score_unit(pair: Mapping[str, Any]) -> dict[str, Any]:
    """A pair of the run as one unit of pointwise judging: the first side ought to score higher."""
    return {
        "id": pair["pair_id"],
        "pair_id": pair["pair_id"],
        "instruction": pair["instruction"],
        "sides": list(SIDES),
        "responses": [pair[side] for side in SIDES],
    }


def judge_messages(prompt: Prompt, unit: Mapping[str, Any]) -> list[Message]:
    """The messages a judge sees for one unit; training renders the very same. `responses`: of a best-of unit."""
    responses = unit.get("responses") or (unit["first"], unit["second"])
    named = {f"response_{'abcd'[i]}": unpack_text(text) for i, text in enumerate(responses)}
    return prompt.render(instruction=unpack_text(unit["instruction"]), **named)


def score_messages(prompt: Prompt, instruction: str, response: str) -> list[Message]:
    """The messages a pointwise judge sees for one packed response; training renders the very same."""
    return prompt.render(instruction=unpack_text(instruction), response=unpack_text(response))
