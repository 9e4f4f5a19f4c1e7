"""MT-Bench human judgments (arXiv 2306.05685): one row a human vote, ties dropped, subsets turn_1 and turn_2.

In turn 2 the instruction is both user messages and each response is the conversation that followed the first
one, as message lists. Both turns of a question share a cluster.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ray_app.base.schema import content_id
from ray_app.benchmarks.base import ID, Dropped, Faulty, Ids, Item, Spec, pairwise_item
from ray_app.benchmarks.files import Numbered

NAME = "mtbench_human"
_LABELS = {"model_a": "A", "model_b": "B"}


def parse(rows: Iterator[Numbered]) -> Iterator[Item]:
    """One item a vote; its id names question, turn, both models and the human."""
    ids = Ids()
    for numbered in rows:
        yield _vote(ids, numbered.row)


def subset_of(name: str) -> str:
    """`1`, `turn 1` and `turn_1` are one subset."""
    number = name.removeprefix("turn").strip(" _")
    return f"turn_{number}" if number in ("1", "2") else name


def _vote(ids: Ids, row: dict[str, Any]) -> Item:
    winner, turn = row.get("winner"), row.get("turn")
    if isinstance(winner, str) and winner.startswith("tie"):
        return Dropped("tie")
    names = [row.get(k) for k in ("question_id", "turn", "model_a", "model_b", "judge")]
    identity, subset = ids.derived(":".join(map(str, names))), f"turn_{turn}"
    a, b = row.get("conversation_a"), row.get("conversation_b")
    fault = _conversation_fault(a, b, turn)
    if fault is not None or not isinstance(a, list) or not isinstance(b, list):
        return Faulty(identity, subset, content_id(a), "bad_conversation", fault or "")
    first = a[0]["content"]
    label = _LABELS.get(winner or "", winner)
    if turn == 1:
        return pairwise_item(identity, subset, first, (a[1]["content"], b[1]["content"]), label)
    users = [a[0], a[2]]
    return pairwise_item(identity, subset, users, (a[1:4], b[1:4]), label, group=content_id(first))


def _conversation_fault(a: Any, b: Any, turn: Any) -> str | None:
    if turn not in (1, 2):
        return f"turn is {turn!r}, not 1 or 2"
    wanted = ["user", "assistant", "user", "assistant"][: 2 * turn]
    for name, conversation in (("a", a), ("b", b)):
        if not isinstance(conversation, list) or not all(isinstance(m, dict) for m in conversation):
            return f"conversation_{name} is not a list of messages"
        if [m.get("role") for m in conversation[: len(wanted)]] != wanted:
            return f"conversation_{name} has no complete turn {turn}"
    if any(a[i].get("content") != b[i].get("content") for i in range(0, len(wanted), 2)):
        return "the two conversations have different user messages"
    return None


SPEC = Spec(
    name=NAME,
    required={
        "question_id": ID,
        "model_a": str,
        "model_b": str,
        "winner": str,
        "judge": str,
        "conversation_a": list,
        "conversation_b": list,
        "turn": int,
    },
    parse=parse,
    hub=("lmsys/mt_bench_human_judgments", None, ("human",)),
    subset=subset_of,
)
