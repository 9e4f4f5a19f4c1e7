"""Rows, ids, seeds and splits: what every stage agrees on. Pure; no I/O.

One declared pyarrow schema a table. A text is a string, or a list of chat messages (multi-turn). Because a
Parquet column has one type, tables store texts as JSON strings (`pack_text` / `unpack_text`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypedDict

import pyarrow as pa

Letter = Literal["A", "B"]


class Message(TypedDict):
    """One chat message, as chat templates take it."""

    role: str
    content: str


Text = str | list[Message]

CHOSEN_FIRST, REJECTED_FIRST = "chosen_first", "rejected_first"  # orders inside a run: gold is known
AB, BA = "ab", "ba"  # orders of pairwise files: gold may be unknown
TRAIN, HELDOUT = "train", "heldout"
GIVEN_STRATEGY = "given"  # of a file's pairs; those of another run keep the strategy that made them

MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
TOKENS = pa.list_(pa.int32())

INSTRUCTIONS = pa.schema(
    [
        ("instruction_id", pa.string()),
        ("text", pa.string()),
        ("source", pa.string()),
        ("category", pa.string()),
        ("complexity", pa.int32()),
        ("language", pa.string()),
        ("split", pa.string()),
    ]
)
ANSWERED = pa.schema([*INSTRUCTIONS, ("answer", pa.string())])  # where `instructions.answer_column` is set
PAIRS = pa.schema(
    [
        ("pair_id", pa.string()),
        ("instruction_id", pa.string()),
        ("instruction", pa.string()),
        ("modified_instruction", pa.string()),
        ("chosen", pa.string()),
        ("rejected", pa.string()),
        ("generator", pa.string()),
        ("strategy", pa.string()),
        ("split", pa.string()),
        ("category", pa.string()),
        ("complexity", pa.int32()),
        ("group", pa.string()),  # pairs that share an instruction or a response: one cluster, one split
        ("mirror", pa.string()),  # pair_id of the same two responses under the other instruction
    ]
)
JUDGMENTS = pa.schema(
    [
        ("pair_id", pa.string()),
        ("order", pa.string()),
        ("sample", pa.int32()),
        ("verdict", pa.string()),
        ("correct", pa.bool_()),
        ("kept", pa.bool_()),
        ("text", pa.string()),
        ("token_ids", TOKENS),  # as drawn; null from endpoints
        ("finish_reason", pa.string()),
        ("seed", pa.int64()),
        ("judge", pa.string()),
        ("prompt_tokens", pa.int32()),
        ("completion_tokens", pa.int32()),
    ]
)
VOTES = pa.schema(
    [
        ("benchmark", pa.string()),
        ("id", pa.string()),
        *[JUDGMENTS.field(name) for name in JUDGMENTS.names if name not in ("pair_id", "kept", "token_ids")],
    ]
)
SCORES = pa.schema(
    [
        ("pair_id", pa.string()),
        ("side", pa.string()),
        ("sample", pa.int32()),
        ("score", pa.float64()),
        ("text", pa.string()),
        ("token_ids", TOKENS),
        ("finish_reason", pa.string()),
        ("seed", pa.int64()),
        ("judge", pa.string()),
        ("prompt_tokens", pa.int32()),
        ("completion_tokens", pa.int32()),
    ]
)
RATINGS = pa.schema(
    [
        ("benchmark", pa.string()),
        ("id", pa.string()),
        *[SCORES.field(name) for name in SCORES.names if name not in ("pair_id", "token_ids")],
    ]
)
_TRAIN_KEY = [
    ("pair_id", pa.string()),
    ("order", pa.string()),
    ("sample", pa.int32()),
    ("iteration", pa.int32()),
]
TRAIN_SFT = pa.schema([*_TRAIN_KEY, ("prompt", MESSAGES), ("completion", MESSAGES), ("completion_ids", TOKENS)])
# Not `chosen_ids`: by that name TRL's trainer takes a row for tokenised.
TRAIN_DPO = pa.schema(
    [
        *_TRAIN_KEY,
        ("prompt", MESSAGES),
        ("chosen", MESSAGES),
        ("rejected", MESSAGES),
        ("chosen_drawn", TOKENS),
        ("rejected_drawn", TOKENS),
    ]
)
QUARANTINE = pa.schema([("id", pa.string()), ("stage", pa.string()), ("reason", pa.string()), ("detail", pa.string())])


@dataclass(frozen=True)
class PairwiseRow:
    """One row of a pairwise file; `group` is the cluster key of the bootstrap (hash of the instruction)."""

    id: str
    subset: str
    instruction: Text
    response_a: Text
    response_b: Text
    label: Letter | None
    group: str
    mirror: str | None = None  # id of the row with these two responses under another instruction
    similarity: float | None = None  # of the instruction and the one that the worse response answers, 0 to 1


def pair_key(row: PairwiseRow) -> tuple[str, bool]:
    """(the same for all rows with this instruction and these two responses, whether this row has them turned round).

    Two rows of one key show a judge the same texts: those of equal turn in the same order, the others in the other.
    """
    a, b = content_id(row.response_a), content_id(row.response_b)
    return content_id([row.instruction, *sorted((a, b))]), a > b


def canonical(value: Any) -> str:
    """Canonical JSON: sorted keys, no spaces, UTF-8 kept; lone surrogates replaced so that it always encodes."""
    text = json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return text.encode("utf-8", "replace").decode("utf-8")


def content_id(value: Any) -> str:
    """First 16 hex digits of SHA-256 over the canonical JSON of `value`."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()[:16]


def derive_seed(run_seed: int, iteration: int, stage: str, id: str, order: str, sample: int) -> int:
    """63-bit seed of one request: a function of what is asked, never of a row's position or of the cluster."""
    digest = hashlib.sha256(canonical([run_seed, iteration, stage, id, order, sample]).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def unit_interval(*parts: Any) -> float:
    """A hash of `parts`, uniform in [0, 1): splits and surplus choices that no re-run or re-order changes."""
    return int(content_id(list(parts)), 16) / 2**64


def split_of(instruction_id: str, heldout_fraction: float) -> str:
    """`heldout` for about `heldout_fraction` of the ids, else `train`."""
    return HELDOUT if unit_interval("split", instruction_id) < heldout_fraction else TRAIN


def unit_id(row: Mapping[str, Any], key: Sequence[str]) -> str:
    """The name of a unit of work: its key columns, joined. Quarantined units carry it as their id."""
    return ":".join(str(row[name]) for name in key)


def pair_id(instruction: Text, chosen: Text, rejected: Text, strategy: str, generator: str) -> str:
    """Content id of a response pair."""
    return content_id([instruction, chosen, rejected, strategy, generator])


def pack_text(text: Text) -> str:
    """A text as one string column: a plain string as it is, a message list as JSON behind a marker."""
    return text if isinstance(text, str) else _MARK + json.dumps(text, ensure_ascii=False)


def unpack_text(packed: str) -> Text:
    """The inverse of `pack_text`."""
    if not packed.startswith(_MARK):
        return packed
    messages: list[Message] = json.loads(packed[len(_MARK) :])
    return messages


# A record separator cannot start a real instruction: the readers strip control characters.
_MARK = "\x1emessages:"
