"""Micro-batches as tensors: packed lines or padded rows, with the position of every loss token.

A token's loss belongs to the position before it, so `targets[i]` is the token that position `i` must predict.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ray_app.train.data import TokenRows


@dataclass(frozen=True)
class Batch:
    """One micro-batch. `positions` and `targets` are flat over the line: where a loss is taken, and what of.

    `row_of_target` numbers each target's row within the batch, for losses by row (DPO).
    `attention` are the keyword arguments our attention kernels read.
    """

    input_ids: torch.Tensor  # (1, tokens) packed, (rows, longest) padded
    position_ids: torch.Tensor
    positions: torch.Tensor  # (targets,) into the flattened tokens
    targets: torch.Tensor  # (targets,)
    row_of_target: torch.Tensor  # (targets,)
    rows: int
    tokens: int  # without padding
    attention: dict[str, Any]

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on another device; copies to a GPU do not wait for it."""
        gpu = torch.device(device).type == "cuda"

        def move(value: Any) -> Any:
            if not torch.is_tensor(value):
                return value
            return (value.pin_memory() if gpu else value).to(device, non_blocking=gpu)

        fields = {name: move(getattr(self, name)) for name in self.__dataclass_fields__}
        fields["attention"] = {name: move(value) for name, value in self.attention.items()}
        return Batch(**fields)


def collate(
    rows: TokenRows, indices: Sequence[int], *, packed: bool, kernel: str = "ste_sdpa", pad_to: int | None = None
) -> Batch:
    """Build the batch of these rows. No rows gives a dummy of two tokens with `rows` 0, whose loss the caller
    drops: every worker must run every layer, because ZeRO-3 gathers a layer's weights together.

    `kernel` is the attention implementation, whose arguments are made here. `pad_to` (packed only) fills the line
    with one more, lossless row: shapes then never change (torch.compile).
    """
    lines = [rows.row(index).astype(np.int64) for index in indices]
    starts_of_loss = [int(rows.prompts[index]) for index in indices]
    if not lines:
        lines, starts_of_loss = [np.zeros(2, np.int64)], [1]
    if packed:
        return _packed(lines, starts_of_loss, len(indices), kernel, pad_to)
    return _padded(lines, starts_of_loss, len(indices))


def _packed(lines: list[Any], prompts: list[int], rows: int, kernel: str, pad_to: int | None) -> Batch:
    tokens = sum(map(len, lines))
    if pad_to is not None and tokens < pad_to:
        lines, prompts = [*lines, np.zeros(pad_to - tokens, np.int64)], [*prompts, pad_to - tokens]
    lengths = [len(line) for line in lines]
    starts = np.concatenate([[0], np.cumsum(lengths)])
    positions, targets, owners = _losses(lines, prompts, starts[:-1])
    return Batch(
        input_ids=torch.from_numpy(np.concatenate(lines))[None],
        position_ids=torch.from_numpy(np.concatenate([np.arange(n) for n in lengths]))[None],
        positions=positions,
        targets=targets,
        row_of_target=owners,
        rows=rows,
        tokens=tokens if rows else 0,
        attention=_attention_arguments(kernel, lengths, pad_to),
    )


def _attention_arguments(kernel: str, lengths: list[int], pad_to: int | None) -> dict[str, Any]:
    """Only what the kernel reads: an unused argument that changes would make torch.compile start again."""
    if kernel in ("ste_varlen", "ste_fa4"):
        starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
        return {"cu_seqlens": torch.from_numpy(starts), "longest": pad_to or max(lengths)}
    return {"row_lengths": tuple(lengths)} if kernel == "ste_sdpa" else {}


def _padded(lines: list[Any], prompts: list[int], rows: int) -> Batch:
    longest = max(map(len, lines))
    ids = np.zeros((len(lines), longest), np.int64)
    for number, line in enumerate(lines):
        ids[number, : len(line)] = line
    # Padding is on the right, so causal attention alone keeps it away from every real token.
    positions, targets, owners = _losses(lines, prompts, np.arange(len(lines)) * longest)
    return Batch(
        input_ids=torch.from_numpy(ids),
        # Rows of their own: pinned memory is written to, which an expanded tensor refuses.
        position_ids=torch.arange(longest).repeat(len(lines), 1),
        positions=positions,
        targets=targets,
        row_of_target=owners,
        rows=rows,
        tokens=sum(map(len, lines)) if rows else 0,
        attention={},
    )


def _losses(lines: list[Any], prompts: list[int], starts: Any) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    positions, targets, owners = [], [], []
    for number, (line, prompt, start) in enumerate(zip(lines, prompts, starts, strict=True)):
        positions.append(start + np.arange(prompt - 1, len(line) - 1))
        targets.append(line[prompt:])
        owners.append(np.full(len(line) - prompt, number))
    return _join(positions), _join(targets), _join(owners)


def _join(parts: list[Any]) -> torch.Tensor:
    return torch.from_numpy(np.concatenate(parts).astype(np.int64))
