"""Rows that a real vLLM answers, or cannot: prompts that are too long, classification, a retrained embedding."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import ray
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from ray_app.base.prompts import CATEGORIES, load_prompt
from ray_app.engine.base import Sampling, UnitResult, Work, alone
from ray_app.engine.manager import PoolManager
from ray_app.engine.pool import EnginePool
from ray_app.generation.programs.classify import ClassifyProgram
from ray_app.generation.programs.judge import JudgeProgram

pytestmark = pytest.mark.usefixtures("cluster")
Make = Callable[..., Any]
DEMO = Path(__file__).resolve().parents[3] / "configs" / "demo"


@pytest.fixture
def pool(manager: PoolManager, engine: Make) -> EnginePool:
    return manager.get("judge", engine()).pool


@pytest.fixture(scope="module")
def other_embedding(model: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A checkpoint whose embedding moved. The output layer is tied to it, and the file holds it once."""
    folder = str(tmp_path_factory.mktemp("embedding"))
    net = AutoModelForCausalLM.from_pretrained(model, dtype=torch.bfloat16)
    assert net.config.tie_word_embeddings
    weights = net.model.embed_tokens.weight
    noise = torch.randn(weights.shape, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        weights.add_((noise * weights.float().std() * 0.2).to(weights.dtype))
    net.save_pretrained(folder)
    AutoTokenizer.from_pretrained(model).save_pretrained(folder)
    return folder


def ask(pool: EnginePool, program: Any, rows: list[dict[str, Any]]) -> list[UnitResult]:
    results: list[UnitResult] = ray.get(
        pool.actors[0].run.remote([Work(program, "judgments", 1, pool.model)], alone(rows))
    )
    return results


def test_a_prompt_over_the_context_is_quarantined_alone(pool: EnginePool, units: Make, greedy: JudgeProgram) -> None:
    rows = units(2)
    rows[1] = {**rows[1], "first": "word " * 2000}
    results = ask(pool, greedy, rows)
    assert [bool(result.rows) for result in results] == [True, False, True, True]
    (fault,) = results[1].quarantine
    assert (fault["id"], fault["reason"]) == (results[1].unit, "prompt_too_long")
    assert "the model takes 1024" in fault["detail"]


ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # engines do not know this file


class Examples:
    """The classification task by example turns: so small a model does not follow the shipped prompt."""

    SHOWN = (
        ("Write a Python function that sorts a list.", "coding", 3),
        ("What is 15 times 7?", "mathematical reasoning", 2),
        ("Write a short poem about the sea.", "creative writing", 4),
        ("How can I sleep better?", "asking for advice", 3),
    )

    def guarded(self, control: object) -> Examples:
        return self  # no instruction of the demo holds a control token

    def render(self, instruction: str, categories: list[str]) -> list[dict[str, str]]:
        assert {category for _, category, _ in self.SHOWN} <= set(categories)
        turns = []
        for shown, category, complexity in self.SHOWN:
            turns.append({"role": "user", "content": f"Classify: {shown}"})
            turns.append({"role": "assistant", "content": f"Category: {category}\nComplexity: {complexity}"})
        return [*turns, {"role": "user", "content": f"Classify: {instruction}"}]


def classified(pool: EnginePool, prompt: Any, keep: tuple[str, ...]) -> list[UnitResult]:
    texts = [json.loads(line)["instruction"] for line in (DEMO / "instructions.jsonl").read_text().splitlines()][:24]
    program = ClassifyProgram(prompt, Sampling(temperature=0, top_p=1, max_tokens=24), keep, None, 0)
    return ask(pool, program, [{"instruction_id": str(i), "text": text} for i, text in enumerate(texts)])


def test_classification_of_real_output(pool: EnginePool) -> None:
    """Categories off the list are none; the filter keeps what it names, and says why the rest went."""
    found = [result.rows[0] for result in classified(pool, Examples(), ())]
    named = [row["category"] for row in found]
    assert set(named) <= {*CATEGORIES, None}
    assert "creative writing" in named
    assert None in named  # it invents categories, such as "critical thinking"
    assert sum(row["complexity"] is not None for row in found) > len(found) // 2
    results = classified(pool, Examples(), ("creative writing",))
    assert [bool(result.rows) for result in results] == [name == "creative writing" for name in named]
    reasons = [fault["reason"] for result in results for fault in result.quarantine]
    assert reasons == ["unclassified" if n is None else "category_filter" for n in named if n != "creative writing"]


def test_a_classifier_that_does_not_follow_the_prompt_loses_no_row(pool: EnginePool) -> None:
    """The shipped prompt: what cannot be read is left empty where nothing is filtered."""
    found = [result.rows[0] for result in classified(pool, load_prompt("classify"), ())]
    assert len(found) == 24
    assert {row["category"] for row in found} <= {*CATEGORIES, None}


def test_a_reload_moves_the_tied_output_layer_too(
    manager: PoolManager, engine: Make, units: Make, greedy: JudgeProgram, other_embedding: str, by_transformers: Make
) -> None:
    """vLLM says "Failed to load weights" of the tied layer on a reload; its text shows that the layer moved along."""
    rows = units(2)
    before = [result.rows[0]["text"] for result in ask(manager.get("judge", engine()).pool, greedy, rows)]
    serving = manager.get("judge", engine(model=other_embedding))
    pool = serving.pool
    assert serving.how == "reloaded"
    after = [result.rows[0]["text"] for result in ask(pool, greedy, rows)]
    assert after != before
    assert after == by_transformers(other_embedding, greedy, rows)
