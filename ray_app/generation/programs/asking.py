"""The gate that asks: a model is shown an instruction and a response, and says whether one does what the other asks.

answers_original   the rejected response does what the original instruction asks, so it is no worse one
misses_own         it does not even do what its own instruction asks: it is bad, not about something else
check_unclear      the model said neither yes nor no
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass

from ray_app.base.prompts import Prompt
from ray_app.base.schema import Text
from ray_app.engine.base import Sampling
from ray_app.generation.programs.calls import Calls

_WORDS = re.compile(r"[^\W\d_]+")


@dataclass(frozen=True)
class Asking:
    """How it is asked."""

    prompt: Prompt  # shows `instruction` and `response`
    sampling: Sampling

    async def fault(self, call: Calls, side: str, original: Text, own: Text, response: str) -> str | None:
        """Why `response`, which answers `own`, is no rejected response to `original`; None where nothing speaks against
        it. `side` tells the questions of one unit apart.
        """
        answers, meets = await asyncio.gather(
            self._does(call, f"check {side} original", original, response),
            self._does(call, f"check {side} own", own, response),
        )
        if answers is None or meets is None:
            return "check_unclear"
        if answers:
            return "answers_original"
        return None if meets else "misses_own"

    async def _does(self, call: Calls, purpose: str, instruction: Text, response: str) -> bool | None:
        shown = {"instruction": instruction, "response": response}
        return yes_or_no(await call.show(purpose, self.prompt, self.sampling, **shown))


def yes_or_no(text: str) -> bool | None:
    """What a model that was asked for one word says: its first or, after some words, its last one; else None."""
    found = [word.casefold() for word in _WORDS.findall(text)]
    said = next((word for word in (*found[:1], *found[-1:]) if word in ("yes", "no")), None)
    return None if said is None else said == "yes"
