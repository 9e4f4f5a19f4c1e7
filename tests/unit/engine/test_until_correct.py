"""Until-correct sampling keeps what "N samples, one random correct one" keeps, for the tokens the formula says.

The judging program runs against the scripted engine in this process; docs/until_correct.md has the argument.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from scipy import stats

from ray_app.engine.base import Completion, Prepared, Sampling, UnitResult
from ray_app.engine.scripted import ScriptedEngine
from ray_app.programs.rows import judge_messages
from ray_app.schema import unit_interval

Make = Callable[..., Any]
P = [0.05, 0.1, 0.3, 0.5, 0.7, 0.95]
WORDS = [5, 20, 80]
N = 15


class FewTexts(ScriptedEngine):
    """Right answers come in five wordings of unequal probability, so that kept texts can be counted."""

    async def generate(self, prepared: Prepared, sampling: Sampling, seed: int | None) -> Completion:
        done = await super().generate(prepared, sampling, seed)
        wording = int(5 * self._draw("wording", prepared.messages[-1]["content"], seed) ** 2)
        return Completion(f"wording{wording} {done.text[-5:]}", "stop", done.prompt_tokens, done.completion_tokens)


def run(engine: ScriptedEngine, program: Any, units: list[dict[str, Any]]) -> list[UnitResult]:
    async def main() -> list[UnitResult]:
        return list(await asyncio.gather(*(program(engine, unit) for unit in units)))

    return asyncio.run(main())


def kept(results: list[UnitResult]) -> dict[str, dict[str, Any]]:
    return {r.unit: row for r in results for row in r.rows if row["kept"]}


def test_both_modes_keep_the_same_samples(scripted: Make, program: Make, units: Make) -> None:
    engine = ScriptedEngine(scripted({"p": P, "unparsed": 0.1}))
    until, everything = (run(engine, program(mode, N), units(300)) for mode in ("until_correct", "all"))
    assert kept(until) == kept(everything)
    assert 0 < len(kept(until)) < 600
    assert {r.unit: len(r.rows) for r in everything} == {r.unit: N for r in until}
    for result in until:  # nothing is drawn behind a correct sample
        assert [row["correct"] for row in result.rows[:-1]] == [False] * (len(result.rows) - 1)


def test_kept_texts_are_distributed_as_a_random_correct_one_of_n(scripted: Make, program: Make, units: Make) -> None:
    """Chi-square over the wordings kept and the units dropped, on 2 × 2,000 units: over 30,000 draws."""
    engine = FewTexts(scripted({"p": P}))
    until = run(engine, program("until_correct", N, run_seed=1), units(1000))
    everything = run(engine, program("all", N, run_seed=2), units(1000))
    assert sum(len(r.rows) for r in everything) >= 20_000
    first = Counter(row["text"].split()[0] for row in kept(until).values())
    first["dropped"] = len(until) - sum(first.values())
    second: Counter[str] = Counter()
    for result in everything:
        correct = [row["text"].split()[0] for row in result.rows if row["correct"]]
        second[correct[int(unit_interval("pick", result.unit) * len(correct))] if correct else "dropped"] += 1
    names = sorted(first | second)
    assert len(names) == 6
    found = stats.chi2_contingency([[first[n] for n in names], [second[n] for n in names]])
    assert found.pvalue > 0.001


def test_the_test_above_sees_a_wrong_rule(scripted: Make, program: Make, units: Make) -> None:
    """Keeping the most frequent wording instead of a random one is told apart."""
    engine = FewTexts(scripted({"p": P}))
    everything = run(engine, program("all", N, run_seed=2), units(1000))
    by_unit = [[row["text"].split()[0] for row in r.rows if row["correct"]] for r in everything]
    random_one = Counter(t[int(unit_interval("pick", i) * len(t))] for i, t in enumerate(by_unit) if t)
    frequent = Counter(Counter(t).most_common(1)[0][0] for t in by_unit if t)
    names = sorted(random_one | frequent)
    assert stats.chi2_contingency([[random_one[n] for n in names], [frequent[n] for n in names]]).pvalue < 1e-6


def test_tokens_are_those_of_the_formula(scripted: Make, program: Make, units: Make) -> None:
    """Σ E[min(Geom(pᵢ), N)]·Lᵢ, with pᵢ from 0.05 to 0.95 and lengths of 6 to 81 tokens."""
    engine = ScriptedEngine(scripted({"p": P, "words": WORDS}))
    rows = units(2000)
    spent = sum(r.counters["completion_tokens"] for r in run(engine, program("until_correct", N), rows))
    expected = 0.0
    for row in rows:
        prompt = judge_messages(program().prompt, row)[-1]["content"]
        p = P[int(unit_interval("p", prompt, None) * len(P))]
        length = WORDS[int(unit_interval("words", prompt, None) * len(WORDS))] + 1
        expected += (1 - (1 - p) ** N) / p * length
    assert spent == pytest.approx(expected, rel=0.05)
