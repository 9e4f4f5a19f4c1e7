"""Prompts with a known answer: the first right and the first wrong response are the pair."""

from __future__ import annotations

from typing import Any

import pytest
from replaying import Call, Replay, run

from ray_app.base.ngrams import Contamination
from ray_app.base.schema import PAIRS, derive_seed
from ray_app.engine.base import Completion, Sampling, UnitResult
from ray_app.generation.pair_gate import Gate
from ray_app.generation.programs.checked import CheckedProgram

QUESTION = "How many legs do three dogs have?"
ROW = {"instruction_id": "i1", "text": QUESTION, "split": "train", "category": None, "complexity": None, "answer": "12"}


def made(drawn: list[Any], row: dict[str, Any] = ROW, **more: Any) -> tuple[UnitResult, Replay]:
    """The unit whose responses, by the number of their draw, are these."""
    program = CheckedProgram(
        **{
            "sampling": Sampling(0.7, 0.9, 100),
            "samples": 5,
            "grader": "numeric",
            "gate": Gate(),
            "generator": "the generator",
            "run_seed": 5,
            "iteration": 1,
            **more,
        }
    )
    by_seed = {derive_seed(5, 1, "pairs", "i1", f"answer {number}", 0): text for number, text in enumerate(drawn)}

    def answer(call: Call) -> Any:
        return by_seed[call.seed]

    engine = Replay(answer)
    (result,) = run(program, engine, row)
    return result, engine


def test_the_first_right_and_the_first_wrong_one() -> None:
    result, engine = made(["4 * 3 = 12", "#### 12", "I do not know.", "So 9.", "So 10."])
    (pair,) = result.rows
    assert (pair["chosen"], pair["rejected"]) == ("4 * 3 = 12", "So 9.")
    assert (pair["strategy"], pair["group"], pair["mirror"]) == ("checked_answer", "i1", None)
    assert set(pair) == set(PAIRS.names)
    assert len(engine.calls) == 4, "nothing more is drawn once there is one of each"
    assert result.counters["samples"] == 4
    assert engine.most_running == 2
    assert all(call.messages == [{"role": "user", "content": QUESTION}] for call in engine.calls)


@pytest.mark.parametrize(
    ("drawn", "reason", "asked"),
    [
        (["12"] * 5, "no_wrong_answer", 5),
        (["12", "who knows"] * 3, "no_wrong_answer", 5),
        (["7"] * 5, "no_right_answer", 5),
        (["who knows"] * 5, "no_right_answer", 5),
        (["7", Completion("12", "length", 1, 1)] * 3, "no_right_answer", 5),
        (["12", Completion("7", "length", 1, 1)] * 3, "no_wrong_answer", 5),
    ],
)
def test_without_one_of_both_there_is_no_pair(drawn: list[Any], reason: str, asked: int) -> None:
    result, engine = made(drawn)
    assert not result.rows
    (lost,) = result.quarantine
    assert (lost["id"], lost["stage"], lost["reason"]) == ("i1", "pairs", reason)
    assert "'answer': '12'" in lost["detail"]
    assert len(engine.calls) == asked


@pytest.mark.parametrize("answer", [None, "", " "])
def test_without_an_answer_nothing_is_asked(answer: str | None) -> None:
    result, engine = made([], {**ROW, "answer": answer})
    assert result.quarantine[0]["reason"] == "no_answer"
    assert not engine.calls


def test_the_gate_and_the_grader_are_settings() -> None:
    long = "Let me see: " + "one and one and " * 9 + "so 9."
    assert made(["12", long], gate=Gate(max_length_ratio=3))[0].quarantine[0]["reason"] == "lengths_apart"
    result, _ = made(["(B)", "A"], {**ROW, "answer": "B"}, grader="exact")
    assert (result.rows[0]["chosen"], result.rows[0]["rejected"]) == ("(B)", "A")


def test_a_response_of_a_benchmark_is_no_pair() -> None:
    grams = Contamination(5)
    grams.add(["how many legs do six cats have"])
    shown = "As for how many legs do six cats have: so 9."
    assert made(["12", shown])[0].rows
    for drawn in (["12", shown], ["4 legs each, how many legs do six cats have aside: 12", "So 9."]):
        assert made(drawn, contamination=grams)[0].quarantine[0]["reason"] == "contaminated_response"
