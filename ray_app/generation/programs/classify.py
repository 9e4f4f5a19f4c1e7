"""The classification program: category and complexity of an instruction (paper, section 4.1)."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from typing import Any

from ray_app.base.prompts import CATEGORIES, Prompt
from ray_app.base.schema import derive_seed, unpack_text
from ray_app.base.verdict import own_text
from ray_app.engine.base import Engine, Sampling, UnitResult


@dataclass(frozen=True)
class ClassifyProgram:
    """Rows of the instructions table in, the same rows with category and complexity out, or quarantined."""

    prompt: Prompt
    sampling: Sampling
    keep_categories: tuple[str, ...]
    min_complexity: int | None
    run_seed: int

    def unit_of(self, row: dict[str, Any]) -> str:
        return str(row["instruction_id"])

    async def __call__(self, engine: Engine, row: dict[str, Any]) -> UnitResult:
        """One classified row, or one quarantine row that says which filter dropped it."""
        identity = row["instruction_id"]
        prompt = self.prompt.guarded(engine.control)
        prepared = engine.prepare(prompt.render(instruction=unpack_text(row["text"]), categories=list(CATEGORIES)))
        seed = derive_seed(self.run_seed, 0, "classify", identity, "", 0) if self.sampling.temperature > 0 else None
        done = await engine.generate(prepared, self.sampling, seed)
        category, complexity = parse_classification(own_text(done.text) or "")
        result = UnitResult(
            unit=identity,
            counters={
                "prompt_tokens": done.prompt_tokens,
                "completion_tokens": done.completion_tokens,
                "samples": 1,
            },
        )
        dropped = filtered_out(category, complexity, self.keep_categories, self.min_complexity)
        if dropped:
            detail = f"category={category} complexity={complexity} text={done.text[:500]!r}"
            result.quarantine.append({"id": identity, "stage": "instructions", "reason": dropped, "detail": detail})
        else:
            result.rows.append({**row, "category": category, "complexity": complexity})
        return result


def parse_classification(text: str) -> tuple[str | None, int | None]:
    """(category, complexity) from a classifier's two lines; None for what is not there or not on the scale."""
    category, complexity = None, None
    named = re.search(r"category\W+([^\n]+)", text, re.IGNORECASE)
    if named:
        near = difflib.get_close_matches(named.group(1).strip(" *.`\"'").lower(), CATEGORIES, n=1, cutoff=0.8)
        category = near[0] if near else None
    number = re.search(r"complexity\D{0,10}(\d+)", text, re.IGNORECASE)
    if number and 1 <= int(number.group(1)) <= 10:
        complexity = int(number.group(1))
    return category, complexity


def filtered_out(
    category: str | None, complexity: int | None, keep: tuple[str, ...], min_complexity: int | None
) -> str | None:
    """The reason a classified instruction is dropped, or None. Unclassified ones pass where nothing is filtered."""
    if keep and category not in keep:
        return "category_filter" if category else "unclassified"
    if min_complexity is not None and (complexity is None or complexity < min_complexity):
        return "complexity_filter" if complexity is not None else "unclassified"
    return None
