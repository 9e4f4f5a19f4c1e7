"""The scripted engine: a pure function of prompt and seed, with the rates it is told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from ray_app.engine.base import EngineError, PromptTooLong, Sampling
from ray_app.engine.scripted import ScriptedEngine
from ray_app.prompts import load_prompt
from ray_app.verdict import parse_verdict

Make = Callable[..., Any]


def ask(engine: ScriptedEngine, question: str, seed: int) -> str:
    prompt = load_prompt("judge_pairwise")
    messages = prompt.render(instruction=question, response_a="GOOD one", response_b="poor one")
    return asyncio.run(engine.generate(engine.prepare(messages), Sampling(), seed)).text


def test_same_prompt_and_seed_same_text(scripted: Make) -> None:
    first, second = ScriptedEngine(scripted()), ScriptedEngine(scripted())
    assert [ask(first, "q", s) for s in range(20)] == [ask(second, "q", s) for s in range(20)]
    assert len({ask(first, "q", s) for s in range(20)}) == 20


def test_rates_are_those_of_the_script(scripted: Make) -> None:
    engine = ScriptedEngine(scripted({"p": [0.3], "unparsed": 0.2}))
    verdicts = [parse_verdict(ask(engine, f"q{i % 50}", i)) for i in range(2000)]
    assert sum(v is None for v in verdicts) / 2000 == pytest.approx(0.2, abs=0.04)
    assert verdicts.count("A") / 2000 == pytest.approx(0.3 * 0.8, abs=0.04)


def test_faults(scripted: Make) -> None:
    with pytest.raises(EngineError):
        ask(ScriptedEngine(scripted({"fail": 1.0})), "q", 1)
    with pytest.raises(PromptTooLong, match="takes 5"):
        ask(ScriptedEngine(scripted(max_model_len=5)), "q", 1)
