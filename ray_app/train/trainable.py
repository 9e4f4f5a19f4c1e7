"""Can this row be trained on? Asked before the training set is balanced, so that what is trained on is balanced.

Picklable: Ray Data's processes ask it, each with a tokenizer of its own.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ray_app.base.local_copy import local_model
from ray_app.base.tokens import control_tokens
from ray_app.train.answers import RowFault
from ray_app.train.data import DPO_COLUMNS, DRAWN, SFT_COLUMNS, encode


@dataclass(frozen=True)
class Trainer:
    """What training will do with a row: the seed's tokenizer and template, and the longest row."""

    seed_model: str  # a folder by its absolute path, or a hub id
    revision: str | None
    sequence_length: int
    chat_template_kwargs: Mapping[str, Any] = field(default_factory=dict)

    @property
    def control(self) -> frozenset[str]:
        """The seed's control tokens."""
        return control_tokens(tokenizer_of(self.seed_model, self.revision))

    def faults(self, row: Mapping[str, Any]) -> dict[str, RowFault]:
        """{answer: why it could not be trained on} of a row of a training set; empty where it can."""
        prompt, *answers = SFT_COLUMNS if "completion" in row else DPO_COLUMNS
        found = {}
        for name in answers:
            try:
                encode(
                    tokenizer_of(self.seed_model, self.revision),
                    row[prompt],
                    row[name],
                    sequence_length=self.sequence_length,
                    chat_template_kwargs=self.chat_template_kwargs,
                    drawn=row.get(DRAWN[name]),
                )
            except RowFault as fault:
                found[name] = fault
        return found


@functools.lru_cache(maxsize=2)  # a seed's, and that of a checkpoint where training goes on from one
def tokenizer_of(seed_model: str, revision: str | None) -> Any:
    """A model's tokenizer, read once a process: reading it takes as long as encoding some hundred rows."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(local_model(seed_model, weights=False), revision=revision)
