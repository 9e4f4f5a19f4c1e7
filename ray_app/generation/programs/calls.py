"""What the pair programs share: the requests of one unit, and the rows of the pairs table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ray_app.base.prompts import Prompt, as_messages
from ray_app.base.schema import Message, Text, derive_seed, pack_text, pair_id
from ray_app.base.verdict import own_text
from ray_app.engine.base import Completion, Sampler, Sampling


class Calls:
    """The requests of one row: seeds by purpose, token counts, and which were cut off."""

    def __init__(self, run_seed: int, iteration: int, engine: Sampler, unit: str) -> None:
        self.run_seed, self.iteration, self.engine, self.id = run_seed, iteration, engine, unit
        self.cut_off: list[str] = []
        self.counters: dict[str, float] = {"samples": 0, "prompt_tokens": 0, "completion_tokens": 0}

    async def answer(self, purpose: str, text: Text, sampling: Sampling) -> str:
        """The answer to an instruction."""
        return await self._ask(purpose, as_messages(text, self.engine.control), sampling)

    async def show(self, purpose: str, prompt: Prompt, sampling: Sampling, **variables: Text) -> str:
        """The answer to a prompt that shows these."""
        return await self._ask(purpose, prompt.guarded(self.engine.control).render(**variables), sampling)

    async def _ask(self, purpose: str, messages: list[Message], sampling: Sampling) -> str:
        seed = derive_seed(self.run_seed, self.iteration, "pairs", self.id, purpose, 0)
        prepared = self.engine.prepare(messages)
        done: Completion = await self.engine.generate(prepared, sampling, seed if sampling.temperature > 0 else None)
        self.counters["samples"] += 1
        self.counters["prompt_tokens"] += done.prompt_tokens
        self.counters["completion_tokens"] += done.completion_tokens
        text = own_text(done.text)
        if done.finish_reason == "length" or text is None:
            self.cut_off.append(purpose)
        return (text or "").strip()


@dataclass(frozen=True)
class Made:
    """How the pairs of one unit were made. Pairs of one `group` share an instruction or a response."""

    strategy: str
    generator: str
    group: str

    def row(
        self, source: Mapping[str, Any], instruction: Text, other: str, chosen: str, rejected: str
    ) -> dict[str, Any]:
        """A row of the pairs table. `source` is the row of the instructions table, `other` what `rejected` answers."""
        return {
            "pair_id": pair_id(instruction, chosen, rejected, self.strategy, self.generator),
            "instruction_id": source["instruction_id"],
            "instruction": pack_text(instruction),
            "modified_instruction": other,
            "chosen": chosen,
            "rejected": rejected,
            "generator": self.generator,
            "strategy": self.strategy,
            "split": source["split"],
            "category": source["category"],
            "complexity": source["complexity"],
            "group": self.group,
            "mirror": None,
        }


def mirrored(one: dict[str, Any], other: dict[str, Any]) -> list[dict[str, Any]]:
    """Two pairs that show the same two responses, each the other's mirror."""
    return [{**one, "mirror": other["pair_id"]}, {**other, "mirror": one["pair_id"]}]
