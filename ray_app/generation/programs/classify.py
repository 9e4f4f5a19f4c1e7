"""The classification program: category and complexity of an instruction (paper, section 4.1)."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from typing import Any

from ray_app.base.prompts import CATEGORIES, Prompt
from ray_app.base.schema import derive_seed, unpack_text
from ray_app.base.verdict import own_text
from ray_app.engine.base import Sampler, Sampling, UnitResult


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

    async def __call__(self, engine: Sampler, row: dict[str, Any]) -> UnitResult:
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
    """(category, complexity) from a classifier's two lines; None for what is not there or not on the scale. Of several
    lines with the word, the first that says something counts.
    """
    named = (_category(found) for found in re.findall(r"category\W+(?:is\W+)?([^\n]+)", text, re.IGNORECASE))
    rated = (_complexity(found) for found in re.findall(r"complexity([^\n]*)", text, re.IGNORECASE))
    return next((c for c in named if c is not None), None), next((c for c in rated if c is not None), None)


def _category(answer: str) -> str | None:
    """The category that an answer means: itself or nearly so, with an example in brackets ("coding (Python)"), the
    start of just one ("math"), or a phrase that holds one ("logical reasoning": the longest).
    """
    said = re.sub(r"\([^)]*\)", " ", answer).strip(" *.`\"'<>[]").lower()
    near = difflib.get_close_matches(said, CATEGORIES, n=1, cutoff=0.8)
    if near:
        return near[0]
    begun = [category for category in CATEGORIES if len(said) > 3 and category.startswith(said)]
    held = [category for category in CATEGORIES if re.search(rf"\b{category}\b", said)]
    return begun[0] if len(begun) == 1 else max(held, key=len, default=None)


def _complexity(answer: str) -> int | None:
    """The rating right behind the first colon, or the first number: not the scale's ("(1-10)", "from 1 to 10")."""
    said = re.sub(r"\([^)]*\)|\b1\s*(?:-|–|to)\s*10\b", " ", answer)
    number = re.match(r"[^:]*:\W*(\d+)", said) or re.search(r"(\d+)", said)
    return int(number.group(1)) if number and 1 <= int(number.group(1)) <= 10 else None


def filtered_out(
    category: str | None, complexity: int | None, keep: tuple[str, ...], min_complexity: int | None
) -> str | None:
    """The reason a classified instruction is dropped, or None. Unclassified ones pass where nothing is filtered."""
    if keep and category not in keep:
        return "category_filter" if category else "unclassified"
    if min_complexity is not None and (complexity is None or complexity < min_complexity):
        return "complexity_filter" if complexity is not None else "unclassified"
    return None
