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
from dataclasses import dataclass
from typing import Any

from ray_app.base.prompts import Prompt, transcript
from ray_app.base.schema import Text, unpack_text
from ray_app.engine.base import Engine, Sampling, UnitResult
from ray_app.generation.pair_gate import Gate, pair_fault
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

    def unit_of(self, row: dict[str, Any]) -> str:
        return str(row["instruction_id"])

    async def __call__(self, engine: Engine, row: dict[str, Any]) -> UnitResult:
        """One pair, or one quarantine row; PromptTooLong and EngineError are the caller's to quarantine."""
        call = Calls(self.run_seed, self.iteration, engine, row["instruction_id"])
        instruction = unpack_text(row["text"])
        if self.strategy == "worse_response":
            chosen, modified, rejected = await self._worse(call, instruction)
        elif self.one_call:
            chosen, modified, rejected = await self._one_call(call, instruction)
        else:
            chosen, modified, rejected = await self._two_calls(call, instruction)
        fault = pair_fault(instruction, modified, chosen, rejected, call.cut_off, self.gate)
        result = UnitResult(unit=row["instruction_id"], counters=call.counters)
        if fault:
            detail = {"modified_instruction": modified, "chosen": chosen, "rejected": rejected}
            result.quarantine.append(
                {"id": row["instruction_id"], "stage": "pairs", "reason": fault, "detail": str(detail)[:2000]}
            )
        else:
            result.rows += self._pairs(row, instruction, chosen, modified, rejected)
        return result

    async def _two_calls(self, call: Calls, instruction: Text) -> tuple[str, str, str]:
        chosen, modified = await asyncio.gather(
            call.answer("chosen", instruction, self.sampling),
            call.show("modified", self.modify, self.modify_sampling, instruction=instruction),
        )
        modified = clean_modified(modified)
        # An empty instruction would only be answered with noise; the check below names it.
        rejected = await call.answer("rejected", modified, self.sampling) if modified else ""
        return chosen, modified, rejected

    async def _one_call(self, call: Calls, instruction: Text) -> tuple[str, str, str]:
        chosen = await call.answer("chosen", instruction, self.sampling)
        shown = {"instruction": instruction, "response": chosen}
        text = await call.show("modified", self.modify_and_respond, self.sampling, **shown)
        parts = _TWO_PARTS.search(text)
        return (chosen, parts.group(1), parts.group(2)) if parts else (chosen, "", "")

    async def _worse(self, call: Calls, instruction: Text) -> tuple[str, None, str]:
        chosen = await call.answer("chosen", instruction, self.sampling)
        shown = {"instruction": instruction, "response": chosen}
        rejected = await call.show("rejected", self.worse, self.sampling, **shown)
        return chosen, None, rejected

    def _pairs(
        self, row: dict[str, Any], instruction: Text, chosen: str, modified: str | None, rejected: str
    ) -> list[dict[str, Any]]:
        made = Made(self.strategy, self.generator, group=row["instruction_id"])
        pair = made.row(row, instruction, modified or "", chosen, rejected)
        if not self.mirror or modified is None:
            return [pair]
        asked = instruction if isinstance(instruction, str) else transcript(instruction)
        return mirrored(pair, made.row(row, modified, asked, rejected, chosen))


def clean_modified(text: str) -> str:
    """A modified instruction without the tags, label or quotes that models put around it."""
    text = re.sub(r"</?\s*(?:modified_)?instruction\s*>", "", text).strip()
    text = re.sub(r"^(?:\*\*)?(?:new|modified) instruction:?(?:\*\*)?:?\s*", "", text, flags=re.IGNORECASE)
    return text[1:-1].strip() if len(text) > 1 and text[0] == text[-1] == '"' else text
