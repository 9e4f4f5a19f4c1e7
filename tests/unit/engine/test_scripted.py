"""The scripted engine: a pure function of prompt and seed, with the rates it is told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ray_app.base.prompts import load_prompt
from ray_app.base.verdict import parse_verdict
from ray_app.engine.base import EngineError, PromptTooLong, Sampling
from ray_app.engine.scripted import ScriptedEngine
from ray_app.engine.settings import EngineSettings

Make = Callable[..., Any]


@pytest.fixture
def scripted() -> Make:
    def make(script: dict[str, Any] | None = None, **more: Any) -> EngineSettings:
        return EngineSettings(**{"model": "scripted", "kind": "scripted", "script": script or {}, **more})

    return make


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


def test_a_held_request_waits_for_its_file_and_no_other_does(tmp_path: Path, scripted: Make) -> None:
    go = tmp_path / "go"
    engine = ScriptedEngine(scripted({"hold": r"instruction>\s+second.*poor", "until": str(go)}))
    prompt = load_prompt("judge_pairwise")

    async def main() -> tuple[bool, str, str]:
        first, second = (
            asyncio.create_task(engine.generate(engine.prepare(messages), Sampling(), 1))
            for messages in (
                prompt.render(instruction=name, response_a="GOOD one", response_b="poor one")
                for name in ("first", "second")
            )
        )
        text = (await first).text
        waiting = not second.done()
        go.touch()
        return waiting, text, (await second).text

    waiting, text, held = asyncio.run(asyncio.wait_for(main(), 60))
    assert waiting
    assert held == ask(ScriptedEngine(scripted()), "second", 1)
    assert text == ask(ScriptedEngine(scripted()), "first", 1)
