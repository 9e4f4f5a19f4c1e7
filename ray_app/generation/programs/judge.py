"""The judging program: one unit is one order of one pair. Used by rejection sampling, evaluation and `judge`.

    until_correct   draw samples 0, 1, … one after the other until one is correct, at most k (paper, section 3.3)
    all             draw all k at once; the kept sample is the correct one of lowest index
    votes           draw k, or stop as soon as the verdict of all k is settled

`until_correct` and `all` keep the same sample wherever the engine is deterministic (docs/until_correct.md).
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any, Literal

from ray_app.base.called_better import called_better
from ray_app.base.content_words import words_apart
from ray_app.base.ngrams import words
from ray_app.base.parsers import LAST, PARSERS, ParserName
from ray_app.base.prompts import Prompt, transcript
from ray_app.base.schema import derive_seed, unit_id, unpack_text
from ray_app.base.verdict import count, cut_in_reasoning, explanation, votes_needed
from ray_app.engine.base import Completion, Prepared, Sampler, Sampling, UnitResult
from ray_app.generation.programs.rows import judge_messages

Mode = Literal["until_correct", "all", "votes"]
SHOWN = ("first", "second")  # a unit's two responses


@dataclass(frozen=True)
class JudgeProgram:
    """Judges rows `{id, order, instruction, first, second, gold, …}`; texts are packed, gold is positional.

    `key` names the row fields copied into every output row, so that one program serves the judgments table
    (pair_id, order) and the votes table (benchmark, id, order).
    """

    prompt: Prompt
    sampling: Sampling
    mode: Mode
    samples: int
    judge: str
    run_seed: int
    iteration: int
    stage: str
    key: tuple[str, ...] = ("id", "order")
    early_stop: bool = True
    keep_text: bool = True
    min_words: int = 0  # of a kept judgment, besides its verdict
    must_name: bool = False  # a kept judgment says a word that only one of the two responses has, where there is one
    must_agree: bool = False  # a kept judgment does not call the other response the better one
    parser: ParserName = LAST
    extra: dict[str, Any] = field(default_factory=dict)

    def unit_of(self, row: dict[str, Any]) -> str:
        return unit_id(row, self.key)

    async def __call__(self, engine: Sampler, row: dict[str, Any]) -> UnitResult:
        """All samples of one unit; PromptTooLong and EngineError are the caller's to quarantine."""
        prepared = engine.prepare(judge_messages(self.prompt.guarded(engine.control), row))
        samples = await self._draw(engine, prepared, row)
        verdicts = self._verdicts(samples)
        kept = self._kept(samples, verdicts, row)
        rows = [self._row(row, j, sample, verdicts[j], j == kept) for j, sample in enumerate(samples)]
        return UnitResult(
            unit=self.unit_of(row),
            rows=rows,
            counters=self._counters(samples, verdicts, kept),
        )

    async def _draw(self, engine: Sampler, prepared: Prepared, row: dict[str, Any]) -> list[Completion]:
        drawn: list[Completion] = []
        while (wave := self._wave(drawn, row)) > 0:
            first = len(drawn)
            drawn += await asyncio.gather(
                *(engine.generate(prepared, self.sampling, self._seed(row, j)) for j in range(first, first + wave))
            )
        return drawn

    def _wave(self, drawn: list[Completion], row: dict[str, Any]) -> int:
        """How many samples to ask for next; 0 ends the unit."""
        if self.mode == "all":
            return self.samples - len(drawn)
        if self.mode == "votes":
            return votes_needed(count(self._verdicts(drawn)), self.samples, self.early_stop)
        last = drawn[-1:]  # those before it were looked at in their turn
        return 0 if len(drawn) == self.samples or self._kept(last, self._verdicts(last), row) is not None else 1

    def _verdicts(self, samples: list[Completion]) -> list[str | None]:
        parse = PARSERS[self.parser]
        return [parse(sample.text, self.prompt.letters) for sample in samples]

    def _kept(self, drawn: list[Completion], verdicts: list[str | None], row: dict[str, Any]) -> int | None:
        """The first sample that is right, and says enough."""
        gold = row.get("gold")
        if self.mode == "votes" or gold is None:
            return None
        for index, (sample, verdict) in enumerate(zip(drawn, verdicts, strict=True)):
            if verdict == gold and self._acceptable(sample.text, gold, row):
                return index
        return None

    def _acceptable(self, text: str, verdict: str, row: dict[str, Any]) -> bool:
        """Whether what a correct judgment says may be taught."""
        if not (self.min_words or self.must_name or self.must_agree):
            return True
        told = explanation(text)
        said = words(told)
        if len(said) < self.min_words or (self.must_agree and called_better(told) not in (None, verdict)):
            return False
        apart = words_apart(*(transcript(unpack_text(row[side])) for side in SHOWN)) if self.must_name else ()
        return not apart or not apart.isdisjoint(said)

    def _seed(self, row: dict[str, Any], sample: int) -> int | None:
        if self.sampling.temperature == 0:
            return None
        return derive_seed(self.run_seed, self.iteration, self.stage, str(row["id"]), row["order"], sample)

    def _row(
        self, row: dict[str, Any], index: int, sample: Completion, verdict: str | None, kept: bool
    ) -> dict[str, Any]:
        gold = row.get("gold")
        out = {
            **{name: row[name] for name in self.key},
            "sample": index,
            "verdict": verdict,
            "correct": None if gold is None else verdict == gold,
            "text": sample.text if self.keep_text else "",
            "finish_reason": sample.finish_reason,
            "seed": self._seed(row, index),
            "judge": self.judge,
            "prompt_tokens": sample.prompt_tokens,
            "completion_tokens": sample.completion_tokens,
        }
        if self.mode != "votes":  # these are trained on: as they were drawn
            out |= {"kept": kept, "token_ids": sample.token_ids}
        return out

    def _counters(self, samples: list[Completion], verdicts: list[str | None], kept: int | None) -> dict[str, float]:
        return {
            "samples": len(samples),
            "unparsed": sum(v is None for v in verdicts),
            "cut_in_reasoning": sum(cut_in_reasoning(s.text, self.sampling.stop) for s in samples),
            "kept": int(kept is not None),
            "prompt_tokens": sum(s.prompt_tokens for s in samples),
            "completion_tokens": sum(s.completion_tokens for s in samples),
        }
