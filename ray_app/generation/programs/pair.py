"""The pair program: one instruction in, one response pair with a known better side out (paper, section 3.2).

    modified_instruction   a related but different instruction is written and answered; that answer is rejected
    worse_response         the generator is asked for a worse answer (the paper's ablation: 80.7 against 83.8)

With `mirror`, the same two responses are a second pair under the modified instruction, the other one chosen: who looks
at the responses alone is right in one of the two at most. Pairs whose label would not be known to be right are
quarantined with a reason (`generation.pair_gate`).
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ray_app.base.ngrams import Contamination
from ray_app.base.prompts import Prompt, transcript
from ray_app.base.schema import Text, unpack_text
from ray_app.engine.base import Sampler, Sampling, UnitResult
from ray_app.generation.pair_gate import Gate, contamination_fault, last_turn, pair_fault, words_fault
from ray_app.generation.programs.asking import Asking
from ray_app.generation.programs.calls import Calls, Made, mirrored

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
    gate: Gate
    generator: str
    run_seed: int
    iteration: int
    mirror: bool = False
    asking: Asking | None = None
    contamination: Contamination | None = None  # of benchmarks, with which nothing that is written here may share text

    def unit_of(self, row: dict[str, Any]) -> str:
        return str(row["instruction_id"])

    async def __call__(self, engine: Sampler, row: dict[str, Any]) -> UnitResult:
        """One pair, or one quarantine row; PromptTooLong and EngineError are the caller's to quarantine."""
        call = Calls(self.run_seed, self.iteration, engine, row["instruction_id"])
        instruction = unpack_text(row["text"])
        chosen, modified, rejected = await WAYS[self.strategy, self.one_call](self, call, instruction)
        fault = self._fault(instruction, chosen, modified, rejected, call.cut_off)
        if fault is None and modified is not None:
            fault = await self._asked(call, instruction, chosen, modified, rejected)
        result = UnitResult(unit=row["instruction_id"], counters=call.counters)
        if fault:
            detail = {"modified_instruction": modified, "chosen": chosen, "rejected": rejected}
            result.quarantine.append(
                {"id": row["instruction_id"], "stage": "pairs", "reason": fault, "detail": str(detail)[:2000]}
            )
        else:
            result.rows += self._pairs(row, instruction, chosen, modified, rejected)
        return result

    def _fault(
        self, instruction: Text, chosen: str, modified: str | None, rejected: str, cut_off: list[str]
    ) -> str | None:
        """What is seen to be wrong with the pair, or with its mirror, where there will be one."""
        fault = pair_fault(instruction, modified, chosen, rejected, cut_off, self.gate)
        if fault is None and self.mirror and modified:
            asked = last_turn(instruction)
            fault = pair_fault(modified, asked, rejected, chosen, [], self.gate, written=False)
            fault = fault or words_fault(self.gate, (instruction, chosen, rejected), (modified, rejected, chosen))
        return fault or contamination_fault(self.contamination, modified, chosen, rejected)

    async def _asked(self, call: Calls, instruction: Text, chosen: str, modified: str, rejected: str) -> str | None:
        """What the generator says against the pair, and against its mirror, where there will be one."""
        if self.asking is None:
            return None
        fault = await self.asking.fault(call, "rejected", instruction, modified, rejected)
        if fault is None and self.mirror:
            return await self.asking.fault(call, "chosen", modified, instruction, chosen)
        return fault

    def _pairs(
        self, row: dict[str, Any], instruction: Text, chosen: str, modified: str | None, rejected: str
    ) -> list[dict[str, Any]]:
        made = Made(self.strategy, self.generator, group=row["instruction_id"])
        pair = made.row(row, instruction, modified or "", chosen, rejected)
        if not self.mirror or modified is None:
            return [pair]
        asked = instruction if isinstance(instruction, str) else transcript(instruction)
        return mirrored(pair, made.row(row, modified, asked, rejected, chosen))


async def _two_calls(asked: PairProgram, call: Calls, instruction: Text) -> tuple[str, str, str]:
    chosen, modified = await asyncio.gather(
        call.answer("chosen", instruction, asked.sampling),
        call.show("modified", asked.modify, asked.modify_sampling, instruction=instruction),
    )
    modified = clean_modified(modified)
    # An empty instruction would only be answered with noise; the check below names it.
    rejected = await call.answer("rejected", modified, asked.sampling) if modified else ""
    return chosen, modified, rejected


async def _one_call(asked: PairProgram, call: Calls, instruction: Text) -> tuple[str, str, str]:
    chosen = await call.answer("chosen", instruction, asked.sampling)
    shown = {"instruction": instruction, "response": chosen}
    text = await call.show("modified", asked.modify_and_respond, asked.sampling, **shown)
    parts = _TWO_PARTS.search(text)
    return (chosen, parts.group(1), parts.group(2)) if parts else (chosen, "", "")


async def _worse(asked: PairProgram, call: Calls, instruction: Text) -> tuple[str, None, str]:
    chosen = await call.answer("chosen", instruction, asked.sampling)
    shown = {"instruction": instruction, "response": chosen}
    rejected = await call.show("rejected", asked.worse, asked.sampling, **shown)
    return chosen, None, rejected


Texts = tuple[str, str | None, str]  # chosen, modified instruction (None: the strategy has none), rejected
WAYS: Mapping[tuple[str, bool], Callable[[PairProgram, Calls, Text], Awaitable[Texts]]] = {
    ("modified_instruction", False): _two_calls,
    ("modified_instruction", True): _one_call,
    ("worse_response", False): _worse,
    ("worse_response", True): _worse,  # it has no second part
}


def clean_modified(text: str) -> str:
    """A modified instruction without the tags, label or quotes that models put around it."""
    text = re.sub(r"</?\s*(?:modified_)?instruction\s*>", "", text).strip()
    text = re.sub(r"^(?:\*\*)?(?:new|modified) instruction:?(?:\*\*)?:?\s*", "", text, flags=re.IGNORECASE)
    return text[1:-1].strip() if len(text) > 1 and text[0] == text[-1] == '"' else text
