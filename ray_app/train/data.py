"""From rows of a training set to token ids: the same tokenisation as inference, the loss on the completion only.

Pure but for `read_rows`. A row is TRL's conversational prompt-completion (or preference) format; tokens come from
`apply_chat_template`, exactly as the engines make their prompts, so training sees what judging will see.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ray_app.base.reasoning import opened_by
from ray_app.base.stores import filesystem
from ray_app.errors import InputError, first_line
from ray_app.system.background import in_threads
from ray_app.train.answers import RowFault, as_drawn, needs_spelling, spelled

SFT_COLUMNS = ("prompt", "completion")
DPO_COLUMNS = ("prompt", "chosen", "rejected")
IN_PLACE = 8_000  # rows; a process of Ray's takes as long to import what encodes as this takes to encode them
DRAWN = {"completion": "completion_ids", "chosen": "chosen_drawn", "rejected": "rejected_drawn"}  # their token ids
SENTINEL = "SENTINELANSWER"  # an answer that no template changes
NOT_PREFIX = "the templated prompt is not a prefix of the templated conversation"
ENCODED = pa.schema(
    [("id", pa.string()), ("tokens", pa.list_(pa.int32())), ("prompt", pa.int32()), ("side", pa.int8())]
)


@dataclass(frozen=True)
class Encoded:
    """Token ids of prompt and completion; the first `prompt` of them carry no loss."""

    tokens: tuple[int, ...]
    prompt: int


def encode(
    tokenizer: Any,
    prompt: Sequence[Mapping[str, str]],
    completion: Sequence[Mapping[str, str]],
    *,
    sequence_length: int,
    chat_template_kwargs: Mapping[str, Any],
    drawn: Sequence[int] | None = None,
) -> Encoded:
    """Encode one prompt and its completion, with the end of turn the chat template gives.

    `drawn`: the token ids of the completion as they were sampled. They are trained on as they are where this tokenizer
    reads them as the completion's text: its spelling may be that of other tokens, or of a control token.

    Raises RowFault: `too_long` (never cut), `prompt_not_prefix` (the template renders the prompt differently once
    an answer follows, so training would not match inference), `template_drops_text` (a template that removes part
    of the answer, as some do with reasoning), `template_refuses` (its own words), `empty_completion`.
    """
    messages = [dict(message) for message in prompt]
    answer = [dict(message) for message in completion]
    if not any(message["content"].strip() for message in answer):
        raise RowFault("empty_completion", "the completion has no text")
    template = functools.partial(tokenizer.apply_chat_template, **{**chat_template_kwargs, "return_dict": False})
    try:
        head = list(template(messages, add_generation_prompt=True))
        said = _said(tokenizer, template, messages, answer, drawn)
        whole = list(template(messages + answer)) if said is None else head + said
        text = template(messages + answer, tokenize=False) if said is None else ""
    except RowFault:
        raise
    except Exception as fault:  # a template may raise what it likes: a role that it does not know, turns that repeat
        raise RowFault("template_refuses", f"the template refuses the conversation: {first_line(fault)}") from fault
    if len(whole) > sequence_length:
        raise RowFault("too_long", f"{len(whole)} tokens, train.sequence_length is {sequence_length}")
    if whole[: len(head)] != head or len(whole) == len(head):
        raise RowFault("prompt_not_prefix", NOT_PREFIX)
    if said is None and any(message["content"].strip() not in text for message in answer):
        raise RowFault("template_drops_text", "the chat template removes part of the completion")
    return Encoded(tuple(whole), len(head))


def _said(
    tokenizer: Any,
    template: Any,
    messages: list[dict[str, str]],
    answer: list[dict[str, str]],
    drawn: Sequence[int] | None,
) -> list[int] | None:
    """Everything behind the prompt, where a template would not make it right of the answer's text, else None."""
    if len(answer) != 1:
        return None
    text, asked = answer[0]["content"], template(messages, add_generation_prompt=True, tokenize=False)
    opened = opened_by(asked)
    ids = as_drawn(tokenizer, text, opened, drawn)
    if ids is None and not needs_spelling(tokenizer, text.removeprefix(opened)):
        return None
    rendered = template([*messages, {"role": "assistant", "content": opened + SENTINEL}], tokenize=False)
    if not rendered.startswith(asked):
        raise RowFault("prompt_not_prefix", NOT_PREFIX)
    before, _, behind = rendered[len(asked) :].rpartition(SENTINEL)
    end = list(tokenizer(behind, add_special_tokens=False).input_ids)
    if ids is not None:
        return ids + end
    begin = list(tokenizer(before, add_special_tokens=False).input_ids) if before else []
    return begin + spelled(tokenizer, text.removeprefix(opened)) + end


def encode_table(
    rows: pa.Table,
    tokenizer: Any,
    *,
    recipe: str,
    sequence_length: int,
    chat_template_kwargs: Mapping[str, Any],
) -> tuple[pa.Table, list[dict[str, str]]]:
    """Encode a training-set table. Returns rows of `ENCODED` and quarantine rows {id, stage, reason, detail}.

    SFT gives one encoded row a training row; DPO two, chosen (side 0) right before rejected (side 1). A preference
    row is quarantined whole. Raises InputError when a column is missing.
    """
    prompt_column, *answers = DPO_COLUMNS if recipe == "dpo" else SFT_COLUMNS
    missing = [name for name in (prompt_column, *answers) if name not in rows.column_names]
    if missing:
        raise InputError(f"training set: column {missing[0]!r} is missing (train.recipe is {recipe})")

    def encoded(row: Mapping[str, Any]) -> list[Encoded] | RowFault:
        try:
            return [
                encode(
                    tokenizer,
                    row[prompt_column],
                    row[name],
                    sequence_length=sequence_length,
                    chat_template_kwargs=chat_template_kwargs,
                    drawn=row.get(DRAWN[name]),
                )
                for name in answers
            ]
        except RowFault as fault:
            return fault

    table: list[dict[str, Any]] = []
    quarantine: list[dict[str, str]] = []
    listed = rows.to_pylist()
    for identity, sides in zip(map(row_id, listed), in_threads(encoded, listed), strict=True):
        if isinstance(sides, RowFault):
            quarantine.append({"id": identity, "stage": "training", "reason": sides.reason, "detail": sides.detail})
            continue
        table += [
            {"id": identity, "tokens": side.tokens, "prompt": side.prompt, "side": number}
            for number, side in enumerate(sides)
        ]
    return pa.Table.from_pylist(table, schema=ENCODED), quarantine


def row_id(row: Mapping[str, Any]) -> str:
    """Key of a training row, as one string: pair_id, order, sample, iteration (those it has)."""
    return "/".join(str(row[key]) for key in ("pair_id", "order", "sample", "iteration") if row.get(key) is not None)


def read_rows(uri: str) -> pa.Table:
    """One Parquet file of a training set, from a path or fsspec URI. Raises InputError when it is not there."""
    fs, path = filesystem(uri)
    if not fs.exists(path):
        raise InputError(f"training set file {uri} does not exist")
    with fs.open(path, "rb") as file:
        return pq.read_table(file)


@dataclass(frozen=True)
class TokenRows:
    """All encoded rows of a training set: flat token ids with offsets, so that a million rows cost no objects.

    `unit_rows` rows in succession (1 for SFT, 2 for DPO: chosen, rejected) form one unit, which is never split.
    """

    tokens: np.ndarray[Any, np.dtype[np.int32]]
    offsets: np.ndarray[Any, np.dtype[np.int64]]
    prompts: np.ndarray[Any, np.dtype[np.int32]]
    unit_rows: int = 1

    def __len__(self) -> int:
        return len(self.prompts)

    @property
    def lengths(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Tokens of each row."""
        return self.offsets[1:] - self.offsets[:-1]

    @property
    def unit_lengths(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Tokens of each unit."""
        lengths: np.ndarray[Any, np.dtype[np.int64]] = self.lengths.reshape(-1, self.unit_rows).sum(axis=1)
        return lengths

    def row(self, index: int) -> np.ndarray[Any, np.dtype[np.int32]]:
        return self.tokens[self.offsets[index] : self.offsets[index + 1]]


def concatenate(tables: Sequence[pa.Table], unit_rows: int = 1) -> TokenRows:
    """Join tables of `ENCODED`, in the given order."""
    table = pa.concat_tables(tables).combine_chunks() if tables else ENCODED.empty_table()
    lists = table.column("tokens")
    column = lists.combine_chunks() if isinstance(lists, pa.ChunkedArray) else lists
    lengths = np.asarray(pa.compute.list_value_length(column), dtype=np.int64)
    return TokenRows(
        tokens=np.asarray(column.flatten(), dtype=np.int32),
        offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        prompts=np.asarray(table.column("prompt"), dtype=np.int32),
        unit_rows=unit_rows,
    )


def unit_rows(recipe: str) -> int:
    """Encoded rows of one unit of the plan: a preference pair is two."""
    return 2 if recipe == "dpo" else 1
