"""The neighbour program: two similar instructions in, a pair and its mirror out (strategy `neighbour_instruction`).

Both are answered as they stand. The answer to one is the rejected response of the other, so every response is once the
better and once the worse one, and nothing but the instruction tells which.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from ray_app.base.ngrams import Contamination
from ray_app.base.prompts import transcript
from ray_app.base.schema import Text, unpack_text
from ray_app.engine.base import Sampler, Sampling, UnitResult
from ray_app.generation.pair_gate import Gate, contamination_fault, last_turn, pair_fault, words_fault
from ray_app.generation.programs.asking import Asking
from ray_app.generation.programs.calls import Calls, Made, mirrored

STRATEGY = "neighbour_instruction"
SIDES = ("first", "second")


@dataclass(frozen=True)
class NeighbourProgram:
    """Couples `{group, first, second}` of rows of the instructions table in, rows of the pairs table out."""

    sampling: Sampling
    gate: Gate
    generator: str
    run_seed: int
    iteration: int
    asking: Asking | None = None
    contamination: Contamination | None = None  # of benchmarks, with which no response may share text

    def unit_of(self, row: dict[str, Any]) -> str:
        return str(row["group"])

    async def __call__(self, engine: Sampler, row: dict[str, Any]) -> UnitResult:
        """Two pairs, or one quarantine row; PromptTooLong and EngineError are the caller's to quarantine."""
        call = Calls(self.run_seed, self.iteration, engine, row["group"])
        sources = [row[side] for side in SIDES]
        texts = [unpack_text(source["text"]) for source in sources]
        answers = await asyncio.gather(
            *(call.answer(side, text, self.sampling) for side, text in zip(SIDES, texts, strict=True))
        )
        fault = self._fault(texts, answers, call.cut_off)
        if fault is None and self.asking is not None:  # each answer is the other instruction's rejected one
            fault = await self.asking.fault(call, "second", texts[0], texts[1], answers[1])
            fault = fault or await self.asking.fault(call, "first", texts[1], texts[0], answers[0])
        result = UnitResult(unit=self.unit_of(row), counters=call.counters)
        if fault:
            detail = str(dict(zip(SIDES, answers, strict=True)))[:2000]
            result.quarantine.append({"id": self.unit_of(row), "stage": "pairs", "reason": fault, "detail": detail})
            return result
        made = Made(STRATEGY, self.generator, group=row["group"])
        shown = [text if isinstance(text, str) else transcript(text) for text in texts]
        result.rows += mirrored(
            made.row(sources[0], texts[0], shown[1], answers[0], answers[1]),
            made.row(sources[1], texts[1], shown[0], answers[1], answers[0]),
        )
        return result

    def _fault(self, texts: list[Text], answers: list[str], cut_off: list[str]) -> str | None:
        """What is seen to be wrong with either pair: what one instruction adds to the other, the other does not."""
        for one, other in ((0, 1), (1, 0)):
            fault = pair_fault(
                texts[one], last_turn(texts[other]), answers[one], answers[other], cut_off, self.gate, written=False
            )
            if fault:
                return fault
        fault = words_fault(self.gate, (texts[0], answers[0], answers[1]), (texts[1], answers[1], answers[0]))
        return fault or contamination_fault(self.contamination, None, *answers)
