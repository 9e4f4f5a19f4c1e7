"""The pair program: one instruction in, one response pair with a known better side out (paper, section 3.2).

    modified_instruction   a related but different instruction is written and answered; that answer is rejected
    worse_response         the generator is asked for a worse answer (the paper's ablation: 80.7 against 83.8)

Degenerate pairs are quarantined with a reason: the pair's label would not be known to be right.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from typing import Any

from ray_app.base.ngrams import words
from ray_app.base.prompts import Prompt, as_messages
from ray_app.base.schema import Message, Text, derive_seed, pack_text, pair_id, unpack_text
from ray_app.base.verdict import own_text
from ray_app.engine.base import Completion, Engine, Sampling, UnitResult

_TWO_PARTS = re.compile(
    r"<modified_instruction>\s*(.*?)\s*</modified_instruction>\s*<modified_response>\s*(.*?)\s*</modified_response>",
    re.DOTALL,
)


@dataclass(frozen=True)
class PairProgram:
    """Rows of the instructions table in, rows of the pairs table out."""

    strategy: str
    one_call: bool
    modify: Prompt
    modify_and_respond: Prompt
    worse: Prompt
    sampling: Sampling
    modify_sampling: Sampling
    max_similarity: float
    generator: str
    run_seed: int
    iteration: int

    def unit_of(self, row: dict[str, Any]) -> str:
        return str(row["instruction_id"])

    async def __call__(self, engine: Engine, row: dict[str, Any]) -> UnitResult:
        """One pair, or one quarantine row; PromptTooLong and EngineError are the caller's to quarantine."""
        call = _Calls(self, engine, row["instruction_id"])
        instruction = unpack_text(row["text"])
        if self.strategy == "worse_response":
            chosen, modified, rejected = await self._worse(call, instruction)
        elif self.one_call:
            chosen, modified, rejected = await self._one_call(call, instruction)
        else:
            chosen, modified, rejected = await self._two_calls(call, instruction)
        fault = pair_fault(instruction, modified, chosen, rejected, call.cut_off, self.max_similarity)
        result = UnitResult(unit=row["instruction_id"], counters=call.counters)
        if fault:
            detail = {"modified_instruction": modified, "chosen": chosen, "rejected": rejected}
            result.quarantine.append(
                {"id": row["instruction_id"], "stage": "pairs", "reason": fault, "detail": str(detail)[:2000]}
            )
        else:
            result.rows.append(self._pair(row, instruction, chosen, modified or "", rejected))
        return result

    async def _two_calls(self, call: _Calls, instruction: Text) -> tuple[str, str, str]:
        chosen, modified = await asyncio.gather(
            call.answer("chosen", instruction, self.sampling),
            call.show("modified", self.modify, self.modify_sampling, instruction=instruction),
        )
        modified = clean_modified(modified)
        # An empty instruction would only be answered with noise; the check below names it.
        rejected = await call.answer("rejected", modified, self.sampling) if modified else ""
        return chosen, modified, rejected

    async def _one_call(self, call: _Calls, instruction: Text) -> tuple[str, str, str]:
        chosen = await call.answer("chosen", instruction, self.sampling)
        shown = {"instruction": instruction, "response": chosen}
        text = await call.show("modified", self.modify_and_respond, self.sampling, **shown)
        parts = _TWO_PARTS.search(text)
        return (chosen, parts.group(1), parts.group(2)) if parts else (chosen, "", "")

    async def _worse(self, call: _Calls, instruction: Text) -> tuple[str, None, str]:
        chosen = await call.answer("chosen", instruction, self.sampling)
        shown = {"instruction": instruction, "response": chosen}
        rejected = await call.show("rejected", self.worse, self.sampling, **shown)
        return chosen, None, rejected

    def _pair(
        self, row: dict[str, Any], instruction: Text, chosen: str, modified: str, rejected: str
    ) -> dict[str, Any]:
        return {
            "pair_id": pair_id(instruction, chosen, rejected, self.strategy, self.generator),
            "instruction_id": row["instruction_id"],
            "instruction": pack_text(instruction),
            "modified_instruction": modified,
            "chosen": chosen,
            "rejected": rejected,
            "generator": self.generator,
            "strategy": self.strategy,
            "split": row["split"],
            "category": row["category"],
            "complexity": row["complexity"],
        }


class _Calls:
    """The requests of one row: seeds by purpose, token counts, and which were cut off."""

    def __init__(self, program: PairProgram, engine: Engine, instruction_id: str) -> None:
        self.program, self.engine, self.id = program, engine, instruction_id
        self.cut_off: list[str] = []
        self.counters: dict[str, float] = {"samples": 0, "prompt_tokens": 0, "completion_tokens": 0}

    async def answer(self, purpose: str, text: Text, sampling: Sampling) -> str:
        """The answer to an instruction."""
        return await self._ask(purpose, as_messages(text, self.engine.control), sampling)

    async def show(self, purpose: str, prompt: Prompt, sampling: Sampling, **variables: Text) -> str:
        """The answer to a prompt that shows these."""
        return await self._ask(purpose, prompt.guarded(self.engine.control).render(**variables), sampling)

    async def _ask(self, purpose: str, messages: list[Message], sampling: Sampling) -> str:
        program = self.program
        seed = derive_seed(program.run_seed, program.iteration, "pairs", self.id, purpose, 0)
        prepared = self.engine.prepare(messages)
        done: Completion = await self.engine.generate(prepared, sampling, seed if sampling.temperature > 0 else None)
        self.counters["samples"] += 1
        self.counters["prompt_tokens"] += done.prompt_tokens
        self.counters["completion_tokens"] += done.completion_tokens
        text = own_text(done.text)
        if done.finish_reason == "length" or text is None:
            self.cut_off.append(purpose)
        return (text or "").strip()


def clean_modified(text: str) -> str:
    """A modified instruction without the tags, label or quotes that models put around it."""
    text = re.sub(r"</?\s*(?:modified_)?instruction\s*>", "", text).strip()
    text = re.sub(r"^(?:\*\*)?(?:new|modified) instruction:?(?:\*\*)?:?\s*", "", text, flags=re.IGNORECASE)
    return text[1:-1].strip() if len(text) > 1 and text[0] == text[-1] == '"' else text


def pair_fault(
    instruction: Text,
    modified: str | None,
    chosen: str,
    rejected: str,
    cut_off: list[str],
    max_similarity: float,
) -> str | None:
    """Why the label of a pair cannot be trusted, or None. `modified` is None where the strategy has none."""
    if modified is not None and not modified:
        return "no_modified_instruction"
    if not chosen or not rejected:
        return "empty_response"
    if cut_off:
        return f"cut_off_{cut_off[0]}"
    if words(chosen) == words(rejected):
        return "equal_responses"
    original = instruction if isinstance(instruction, str) else instruction[-1]["content"]
    if modified is not None and similarity(original, modified) > max_similarity:
        return "modified_equals_original"
    return None


def similarity(a: str, b: str) -> float:
    """Jaccard similarity of word trigrams, in [0, 1]; texts under three words are compared as word sets."""
    first, second = words(a), words(b)
    size = min(3, len(first), len(second)) or 1
    grams_a = {tuple(first[i : i + size]) for i in range(len(first) - size + 1)}
    grams_b = {tuple(second[i : i + size]) for i in range(len(second) - size + 1)}
    union = grams_a | grams_b
    return len(grams_a & grams_b) / len(union) if union else 1.0
