"""The classification program: what is read from a classifier's answer, and what its filters drop."""

from __future__ import annotations

from typing import Any

import pytest
from replaying import Replay, in_turn, run

from ray_app.base.prompts import CATEGORIES, load_prompt
from ray_app.base.schema import derive_seed, pack_text
from ray_app.engine.base import Sampling
from ray_app.generation.programs.classify import ClassifyProgram, filtered_out, parse_classification

ROW = {"instruction_id": "i1", "text": "What is 2 + 2?", "category": None, "complexity": None, "split": "train"}


def program(**more: Any) -> ClassifyProgram:
    given: dict[str, Any] = {
        "sampling": Sampling(temperature=0, max_tokens=32),
        "keep_categories": (),
        "min_complexity": None,
        **more,
    }
    return ClassifyProgram(prompt=load_prompt("classify"), run_seed=1, **given)


@pytest.mark.parametrize(
    ("text", "category", "complexity"),
    [
        ("Category: coding\nComplexity: 7", "coding", 7),
        ("**Category:** Mathematical Reasoning.\n**Complexity:** 10", "mathematical reasoning", 10),
        ("category - open question answerin\ncomplexity: 6", "open question answering", 6),
        ("Category: `summarisation`\nComplexity: 3/10", "summarization", 3),
        ("Category: cooking\nComplexity: 3", None, 3),
        ("Category: coding (Python)\nComplexity (1-10): 7", "coding", 7),
        ("The category is coding.\nThe complexity is 4 out of 10.", "coding", 4),
        ("Category: math\nComplexity on a scale of 1-10: 6", "mathematical reasoning", 6),
        ("Category: <math>\nComplexity: <6>", "mathematical reasoning", 6),
        ("Category: Logical reasoning\nComplexity, from 1 to 10, is 8", "reasoning", 8),
        ("Category: mathematical reasoning and logic\nComplexity = 9", "mathematical reasoning", 9),
        ("Category: open\nComplexity:", "open question answering", None),
        ("Category: c\nComplexity: high", None, None),
        ("Category: coding\nComplexity: 7 (reason: needs 3 steps)", "coding", 7),
        ("Category: coding\nComplexity: 7 (scale: 1-10)", "coding", 7),
        ("Category: coding\nComplexity: 8 - reason: 2 parts", "coding", 8),
        ("I rate category and complexity.\nCategory: coding\nComplexity: 6", "coding", 6),
        ("Category: coding\nComplexity: 0", "coding", None),
        ("Category: coding\nComplexity: 11", "coding", None),
        ("Category: coding", "coding", None),
        ("Complexity: 5", None, 5),
        ("It is hard to say.", None, None),
        ("", None, None),
    ],
)
def test_two_lines_are_read(text: str, category: str | None, complexity: int | None) -> None:
    assert parse_classification(text) == (category, complexity)


def test_every_category_is_read_back() -> None:
    assert len(CATEGORIES) == 15
    for category in CATEGORIES:
        assert parse_classification(f"Category: {category}\nComplexity: 4") == (category, 4)
        assert parse_classification(f"Category: <{category}>\nComplexity: <4>") == (category, 4)


def test_a_category_that_is_copied_with_its_definition_is_read() -> None:
    shown = load_prompt("classify").render(instruction="x")[-1]["content"]
    for category in CATEGORIES:
        line = next(line for line in shown.splitlines() if line.startswith(f"- {category}: "))
        assert parse_classification(f"Category: {line[2:]}\nComplexity: 4") == (category, 4)


@pytest.mark.parametrize(
    ("category", "complexity", "keep", "least", "reason"),
    [
        ("coding", 5, (), None, None),
        (None, None, (), None, None),
        ("coding", 5, ("coding",), 5, None),
        ("coding", 4, ("coding",), 5, "complexity_filter"),
        ("other", 9, ("coding",), 5, "category_filter"),
        (None, 9, ("coding",), None, "unclassified"),
        ("coding", None, (), 5, "unclassified"),
        ("coding", None, ("coding",), None, None),
    ],
)
def test_filters(
    category: str | None, complexity: int | None, keep: Any, least: int | None, reason: str | None
) -> None:
    assert filtered_out(category, complexity, keep, least) == reason


def test_a_classified_row_keeps_its_other_columns() -> None:
    engine = Replay(in_turn(["<think>a sum</think>Category: mathematical reasoning\nComplexity: 1"]))
    (result,) = run(program(), engine, ROW)
    assert result.rows == [{**ROW, "category": "mathematical reasoning", "complexity": 1}]
    assert result.unit == program().unit_of(ROW) == "i1"
    assert result.counters == {"samples": 1, "prompt_tokens": 10, "completion_tokens": 6}
    assert ROW["text"] in engine.calls[0].prompt
    assert all(f"- {category}: " in engine.calls[0].prompt for category in CATEGORIES)


def test_a_dropped_row_is_quarantined_with_what_was_said() -> None:
    engine = Replay(in_turn(["Category: coding\nComplexity: 2"]))
    (result,) = run(program(keep_categories=("other",)), engine, ROW)
    assert result.rows == []
    (lost,) = result.quarantine
    assert (lost["id"], lost["stage"], lost["reason"]) == ("i1", "instructions", "category_filter")
    assert "category=coding complexity=2" in lost["detail"]
    assert result.counters["samples"] == 1, "its tokens were spent"


def test_seeds_only_where_sampling_is_random() -> None:
    greedy, random = Replay(lambda _: "Complexity: 1"), Replay(lambda _: "Complexity: 1")
    run(program(), greedy, ROW)
    run(program(sampling=Sampling()), random, ROW)
    assert greedy.calls[0].seed is None
    assert random.calls[0].seed == derive_seed(1, 0, "classify", "i1", "", 0)


def test_a_conversation_is_classified_by_its_transcript() -> None:
    engine = Replay(lambda _: "Complexity: 1")
    turns: Any = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    (result,) = run(program(), engine, {**ROW, "text": pack_text(turns)})
    assert "User: Hi\n\nAssistant: Hello" in engine.calls[0].prompt
    assert result.rows[0]["text"] == pack_text(turns)
