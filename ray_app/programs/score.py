"""The pointwise program: a judge scores one response from 1 to 10 (the paper's open question, section 7).

One unit is one side of one pair: k scored samples, averaged elsewhere (`metrics`).
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from ray_app.engine.base import Engine, Sampling, UnitResult
from ray_app.prompts import Prompt
from ray_app.schema import derive_seed, unit_id, unpack_text
from ray_app.verdict import parse_score


@dataclass(frozen=True)
class ScoreProgram:
    """Scores rows `{id, side, instruction, response, …}`; `key` names the fields copied into every output row."""

    prompt: Prompt
    sampling: Sampling
    samples: int
    judge: str
    run_seed: int
    iteration: int
    stage: str
    key: tuple[str, ...] = ("pair_id", "side")

    def unit_of(self, row: dict[str, Any]) -> str:
        return unit_id(row, self.key)

    async def __call__(self, engine: Engine, row: dict[str, Any]) -> UnitResult:
        """k samples of one side; PromptTooLong and EngineError are the caller's to quarantine."""
        prepared = engine.prepare(
            self.prompt.render(instruction=unpack_text(row["instruction"]), response=unpack_text(row["response"]))
        )
        greedy = self.sampling.temperature == 0
        seeds = [
            None if greedy else derive_seed(self.run_seed, self.iteration, self.stage, row["id"], row["side"], j)
            for j in range(self.samples)
        ]
        samples = await asyncio.gather(*(engine.generate(prepared, self.sampling, seed) for seed in seeds))
        rows = [
            {
                **{name: row[name] for name in self.key},
                "sample": j,
                "score": parse_score(sample.text),
                "text": sample.text,
                "finish_reason": sample.finish_reason,
                "seed": seeds[j],
                "judge": self.judge,
                "prompt_tokens": sample.prompt_tokens,
                "completion_tokens": sample.completion_tokens,
            }
            for j, sample in enumerate(samples)
        ]
        return UnitResult(
            unit=self.unit_of(row),
            rows=rows,
            counters={
                "samples": len(rows),
                "unparsed": sum(r["score"] is None for r in rows),
                "prompt_tokens": sum(r["prompt_tokens"] for r in rows),
                "completion_tokens": sum(r["completion_tokens"] for r in rows),
            },
        )
