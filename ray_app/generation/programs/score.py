"""The pointwise program: a judge scores single responses from 1 to 10 (the paper's open question, section 7).

One unit is one instruction with its responses, one a side: chosen and rejected in the loop, a and b in a pairwise file,
0, 1, … in a best-of file.

    all             k samples of every side, at once; averaged elsewhere (`ray_app.scoring`)
    until_correct   sample j of both sides, j = 0, 1, … until the first side's score exceeds the second's, at most k
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, Literal

from ray_app.base.prompts import Prompt
from ray_app.base.schema import derive_seed, unit_id
from ray_app.base.verdict import cut_in_reasoning, first_win, parse_score
from ray_app.engine.base import Completion, Prepared, Sampler, Sampling, UnitResult
from ray_app.generation.programs.rows import score_messages


@dataclass(frozen=True)
class ScoreProgram:
    """Scores rows `{id, instruction, sides, responses, …}`; texts are packed. `key` is copied into every output row."""

    prompt: Prompt
    sampling: Sampling
    samples: int
    judge: str
    run_seed: int
    iteration: int
    stage: str
    mode: Literal["all", "until_correct"] = "all"
    key: tuple[str, ...] = ("pair_id",)
    keep_tokens: bool = False  # of what is trained on: as it was drawn

    def unit_of(self, row: dict[str, Any]) -> str:
        return unit_id(row, self.key)

    async def __call__(self, engine: Sampler, row: dict[str, Any]) -> UnitResult:
        """All samples of all sides; PromptTooLong and EngineError are the caller's to quarantine."""
        prompt = self.prompt.guarded(engine.control)
        prepared = [
            engine.prepare(score_messages(prompt, row["instruction"], response)) for response in row["responses"]
        ]
        drawn: list[list[Completion]] = []  # by sample, then side
        while wave := self._wave(drawn):
            numbers = range(len(drawn), len(drawn) + wave)
            drawn += await asyncio.gather(*(self._sample(engine, row, prepared, j) for j in numbers))
        rows = [
            self._row(row, side, j, sample)
            for j, samples in enumerate(drawn)
            for side, sample in zip(row["sides"], samples, strict=True)
        ]
        return UnitResult(unit=self.unit_of(row), rows=rows, counters=self._counters(rows, drawn))

    async def _sample(self, engine: Sampler, row: dict[str, Any], prepared: list[Prepared], j: int) -> list[Completion]:
        asked = zip(row["sides"], prepared, strict=True)
        return await asyncio.gather(*(engine.generate(p, self.sampling, self._seed(row, side, j)) for side, p in asked))

    def _wave(self, drawn: list[list[Completion]]) -> int:
        """How many samples to ask for next; 0 ends the unit."""
        if self.mode == "all":
            return self.samples - len(drawn)
        return 0 if _won(drawn) is not None or len(drawn) == self.samples else 1

    def _seed(self, row: dict[str, Any], side: str, sample: int) -> int | None:
        if self.sampling.temperature == 0:
            return None
        return derive_seed(self.run_seed, self.iteration, self.stage, str(row["id"]), side, sample)

    def _row(self, row: dict[str, Any], side: str, index: int, sample: Completion) -> dict[str, Any]:
        return {
            **{name: row[name] for name in self.key},
            "side": side,
            "sample": index,
            "score": parse_score(sample.text),
            "text": sample.text,
            **({"token_ids": sample.token_ids} if self.keep_tokens else {}),
            "finish_reason": sample.finish_reason,
            "seed": self._seed(row, side, index),
            "judge": self.judge,
            "prompt_tokens": sample.prompt_tokens,
            "completion_tokens": sample.completion_tokens,
        }

    def _counters(self, rows: list[dict[str, Any]], drawn: list[list[Completion]]) -> dict[str, float]:
        return {
            "samples": len(rows),
            "unparsed": sum(r["score"] is None for r in rows),
            "cut_in_reasoning": sum(cut_in_reasoning(r["text"], self.sampling.stop) for r in rows),
            "kept": int(self.mode == "until_correct" and _won(drawn) is not None),
            "prompt_tokens": sum(r["prompt_tokens"] for r in rows),
            "completion_tokens": sum(r["completion_tokens"] for r in rows),
        }


def _won(drawn: list[list[Completion]]) -> int | None:
    """The first sample in which the first side's score exceeds the second's."""
    return first_win([(parse_score(first.text), parse_score(second.text)) for first, second in drawn])
