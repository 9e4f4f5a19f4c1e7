"""The gate that asks: a model is shown an instruction and a response, and says whether one does what the other asks.

The generator is asked where it makes pairs (`pairs.ask_generator`), the judge before it judges them
(`judging.ask_pairs`).

answers_original   the rejected response does what the original instruction asks, so it is no worse one
misses_own         it does not even do what its own instruction asks: it is bad, not about something else
check_unclear      the model said neither yes nor no
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

from ray_app.base.prompts import Prompt
from ray_app.base.schema import Text, unpack_text
from ray_app.engine.base import Sampler, Sampling, UnitResult
from ray_app.generation.programs.calls import Calls

_WORDS = re.compile(r"[^\W\d_]+")


@dataclass(frozen=True)
class Asking:
    """How it is asked."""

    prompt: Prompt  # shows `instruction` and `response`
    sampling: Sampling

    async def fault(self, call: Calls, side: str, original: Text, own: Text | None, response: str) -> str | None:
        """Why `response`, which answers `own`, is no rejected response to `original`; None where nothing speaks against
        it. `side` tells the questions of one unit apart. Without `own` there is only the first question.
        """
        answers, meets = await asyncio.gather(
            self._does(call, f"check {side} original", original, response),
            self._does(call, f"check {side} own", own, response) if own else _granted(),
        )
        if answers is None or meets is None:
            return "check_unclear"
        if answers:
            return "answers_original"
        return None if meets else "misses_own"

    async def _does(self, call: Calls, purpose: str, instruction: Text, response: str) -> bool | None:
        shown = {"instruction": instruction, "response": response}
        return yes_or_no(await call.show(purpose, self.prompt, self.sampling, **shown))


@dataclass(frozen=True)
class AskedFirst:
    """Judges units of pairs by `program`, once the judge was asked about their pair. A unit has, besides what `program`
    reads, `rejected` and `modified_instruction` (empty where there is none).

    The orders of a pair are units of their own, so its questions are put for each of them; they are the same ones.
    """

    program: Any
    asking: Asking
    run_seed: int
    iteration: int
    stage: str

    def unit_of(self, row: dict[str, Any]) -> str:
        return str(self.program.unit_of(row))

    async def __call__(self, engine: Sampler, row: dict[str, Any]) -> UnitResult:
        """What `program` makes of the unit, or one quarantine row; PromptTooLong and EngineError are the caller's."""
        call = Calls(self.run_seed, self.iteration, engine, row["id"])
        original, own = unpack_text(row["instruction"]), row["modified_instruction"] or None
        fault = await self.asking.fault(call, "rejected", original, own, row["rejected"])
        if fault is None:
            judged: UnitResult = await self.program(engine, row)
            spent = Counter(call.counters) + Counter(judged.counters)  # the questions' tokens are this stage's too
            return replace(judged, counters={**judged.counters, **spent})
        lost = {"id": self.unit_of(row), "stage": self.stage, "reason": fault, "detail": row["rejected"][:2000]}
        return UnitResult(unit=self.unit_of(row), quarantine=[lost], counters=call.counters)


async def _granted() -> bool:
    return True


def yes_or_no(text: str) -> bool | None:
    """What a model that was asked for one word says: its first or, after some words, its last one; else None."""
    found = [word.casefold() for word in _WORDS.findall(text)]
    said = next((word for word in (*found[:1], *found[-1:]) if word in ("yes", "no")), None)
    return None if said is None else said == "yes"
