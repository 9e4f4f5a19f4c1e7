"""The pair program for prompts with a known answer: of several responses, a right and a wrong one.

Responses are drawn until there is one of each, `samples` at most: the first right and the first wrong one, as they
would be of all that could be drawn. Which is better was checked, so a judge learns to see errors, not who writes well.

    no_answer         the instruction's row has no known answer
    no_right_answer   none of the responses was right
    no_wrong_answer   all that could be graded were right: the instruction is too easy for the generator
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from ray_app.base.ngrams import Contamination
from ray_app.base.schema import Text, unpack_text
from ray_app.engine.base import Sampler, Sampling, UnitResult
from ray_app.generation.grading import GRADERS, known_answer
from ray_app.generation.pair_gate import Gate, contamination_fault, pair_fault
from ray_app.generation.programs.calls import Calls, Made

STRATEGY = "checked_answer"


@dataclass(frozen=True)
class CheckedProgram:
    """Rows of the instructions table, with their `answer`, in; rows of the pairs table out."""

    sampling: Sampling
    samples: int
    grader: str  # one of GRADERS
    gate: Gate
    generator: str
    run_seed: int
    iteration: int
    contamination: Contamination | None = None  # of benchmarks, with which no response may share text

    def unit_of(self, row: dict[str, Any]) -> str:
        return str(row["instruction_id"])

    async def __call__(self, engine: Sampler, row: dict[str, Any]) -> UnitResult:
        """One pair, or one quarantine row; PromptTooLong and EngineError are the caller's to quarantine."""
        call = Calls(self.run_seed, self.iteration, engine, row["instruction_id"])
        instruction, known = unpack_text(row["text"]), known_answer(row.get("answer") or "")
        graded = await self._graded(call, instruction, known) if known else []
        right = next((text for text, grade in graded if grade is True), None)
        wrong = next((text for text, grade in graded if grade is False), None)
        fault = self._fault(instruction, known, right, wrong)
        result = UnitResult(unit=self.unit_of(row), counters=call.counters)
        if fault:
            detail = str({"answer": known, "responses": graded})[:2000]
            result.quarantine.append({"id": self.unit_of(row), "stage": "pairs", "reason": fault, "detail": detail})
        else:
            made = Made(STRATEGY, self.generator, group=row["instruction_id"])
            result.rows.append(made.row(row, instruction, "", right or "", wrong or ""))
        return result

    async def _graded(self, call: Calls, instruction: Text, known: str) -> list[tuple[str, bool | None]]:
        """Responses as they were drawn, each with its grade; one that was cut off has none."""
        grade, graded = GRADERS[self.grader], list[tuple[str, bool | None]]()
        while len(graded) < self.samples and not {True, False} <= {found for _, found in graded}:
            wave = min(self.samples, 2) if not graded else 1  # two are needed in any case
            names = [f"answer {number}" for number in range(len(graded), len(graded) + wave)]
            texts = await asyncio.gather(*(call.answer(name, instruction, self.sampling) for name in names))
            for name, text in zip(names, texts, strict=True):
                graded.append((text, None if name in call.cut_off else grade(known, text)))
        return graded

    def _fault(self, instruction: Text, known: str, right: str | None, wrong: str | None) -> str | None:
        if not known:
            return "no_answer"
        if right is None:
            return "no_right_answer"
        if wrong is None:
            return "no_wrong_answer"
        fault = pair_fault(instruction, None, right, wrong, [], self.gate)
        return fault or contamination_fault(self.contamination, None, right, wrong)
