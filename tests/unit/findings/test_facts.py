"""What is counted in one pass over a table."""

from __future__ import annotations

from typing import Any

import pytest

from ray_app.findings import facts as facts_module
from ray_app.findings.facts import EXAMPLES, explanation_facts, pair_facts, verdict_facts
from ray_app.train.data import row_id


def pair(number: int, chosen: str, rejected: str) -> dict[str, Any]:
    return {"pair_id": f"p{number}", "chosen": chosen, "rejected": rejected}


def row(number: int, text: str) -> dict[str, Any]:
    key = {"pair_id": f"p{number}", "order": "chosen_first", "sample": 0, "iteration": 1}
    return {**key, "completion": [{"role": "assistant", "content": text}]}


def test_pairs() -> None:
    facts = pair_facts(
        [
            pair(1, "Paris is the capital of France.", "I'm ready to help. What do you need?"),
            pair(2, "Berlin.", "I'm sorry, but I can't help with that."),
            pair(3, "one two three four five six", "one two three four five six"),
            pair(4, "A long enough answer to this.", "Short."),
        ]
    )
    assert (facts.meta_talk.count, facts.meta_talk.ids) == (1, ["p1"])
    assert (facts.refusals.count, facts.refusals.ids) == (1, ["p2"])
    assert (facts.near_copies.value, facts.near_copies.ids) == (0.25, ["p3"])
    assert (facts.chosen_longer.of, facts.chosen_longer.ids) == (3, ["p4"])
    assert facts.chosen_shorter.ids == ["p1", "p2"]


def test_explanations() -> None:
    texts = ["[[A]]", "A is right. [[A]]", "A is right! [[A]]", "B names the city, A does not. [[B]]"]
    facts = explanation_facts(row(i, text) for i, text in enumerate(texts))
    assert (facts.bare.count, facts.bare.ids) == (1, ["p0/chosen_first/0/1"])
    assert facts.words_median == 3
    assert facts.distinct == 2 / 3
    assert facts.commonest == "a is right"
    assert facts.commonest_ids == [row_id(row(i, "")) for i in (1, 2)]


def test_verdicts_and_an_empty_table() -> None:
    votes = [{"id": "x", "order": "ab", "sample": i, "verdict": v} for i, v in enumerate(["A", "A", "B", None])]
    facts = verdict_facts(votes)
    assert (facts.unparsed.value, facts.unparsed.ids) == (0.25, ["x/ab/3"])
    assert (facts.first.of, facts.first.ids) == (3, ["x/ab/0", "x/ab/1"])
    assert pair_facts([]).meta_talk.value is explanation_facts([]).distinct is verdict_facts([]).first.value is None


def test_the_share_of_distinct_ones_is_true_of_many_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(facts_module, "PHRASINGS", 100)
    texts = [f"reason {i}" if i % 2 else "the same" for i in range(2000)]
    facts = explanation_facts(row(i, text) for i, text in enumerate(texts))
    assert facts.distinct == pytest.approx(0.5, abs=0.01)


def test_few_ids_are_kept_of_many_rows() -> None:
    facts = verdict_facts({"id": str(i), "order": "ab", "sample": 0, "verdict": None} for i in range(1000))
    assert (facts.unparsed.count, len(facts.unparsed.ids)) == (1000, EXAMPLES)
