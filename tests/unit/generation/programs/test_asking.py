"""The gate that asks: which questions are put, and what their answers do to a pair and to its mirror."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from replaying import Call, Replay, run

from ray_app.base.prompts import load_prompt
from ray_app.engine.base import Sampling, UnitResult
from ray_app.generation.pair_gate import Gate
from ray_app.generation.programs.asking import AskedFirst, Asking, yes_or_no
from ray_app.generation.programs.neighbour import NeighbourProgram
from ray_app.generation.programs.pair import PairProgram

BIRD, FISH = "Name a bird that sings at night.", "Which fish lives longest in a cold lake?"
TOLD = {BIRD: "The nightingale.", FISH: "The lake trout."}
ASKING = Asking(load_prompt("check_response", "check_response"), Sampling(temperature=0, max_tokens=9))
COMMON: dict[str, Any] = {"sampling": Sampling(), "gate": Gate(), "generator": "g", "run_seed": 5, "iteration": 1}
Said = dict[tuple[str, str], str]  # {(instruction, response): what the model says of them}


def question(call: Call) -> tuple[str, str] | None:
    """(instruction, response) that a request asks about; None where it asks for something else."""
    if not call.prompt.endswith("yes or no."):
        return None
    texts = [next(t for t in found if t in call.prompt) for found in (TOLD.keys(), TOLD.values())]
    return texts[0], texts[1]


def replay(said: Said) -> Replay:
    def answer(call: Call) -> str:
        asked = question(call)
        if asked is not None:
            return said.get(asked, "Yes." if TOLD[asked[0]] == asked[1] else "no")
        return FISH if "new instruction" in call.prompt else TOLD[call.prompt]

    return Replay(answer)


def written(said: Said, mirror: bool = False) -> tuple[UnitResult, Replay]:
    prompts = {name: load_prompt(f"{name}_instruction") for name in ("modify",)}
    program = PairProgram(
        strategy="modified_instruction",
        one_call=False,
        modify_and_respond=load_prompt("modify_and_respond"),
        worse=load_prompt("worse_response"),
        modify_sampling=Sampling(),
        mirror=mirror,
        asking=ASKING,
        **prompts,
        **COMMON,
    )
    engine = replay(said)
    row = {"instruction_id": "i1", "text": BIRD, "split": "train", "category": None, "complexity": None}
    (result,) = run(program, engine, row)
    return result, engine


def coupled(said: Said) -> tuple[UnitResult, Replay]:
    engine = replay(said)
    sides = [
        {"instruction_id": name, "text": text, "split": "train", "category": None, "complexity": None}
        for name, text in (("i1", BIRD), ("i2", FISH))
    ]
    couple = {"group": "g", "first": sides[0], "second": sides[1]}
    (result,) = run(NeighbourProgram(asking=ASKING, **COMMON), engine, couple)
    return result, engine


def questions(engine: Replay) -> set[tuple[str, str]]:
    return {asked for call in engine.calls if (asked := question(call)) is not None}


def test_the_rejected_response_is_shown_with_both_instructions() -> None:
    result, engine = written({})
    assert len(result.rows) == 1
    assert questions(engine) == {(BIRD, TOLD[FISH]), (FISH, TOLD[FISH])}
    assert result.counters["samples"] == 5
    assert all(call.sampling.temperature == 0 and call.seed is None for call in engine.calls if question(call))


def test_with_a_mirror_every_response_is_shown_with_both() -> None:
    for result, engine in (written({}, mirror=True), coupled({})):
        assert len(result.rows) == 2
        assert questions(engine) == set(itertools.product(TOLD.keys(), TOLD.values()))


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ({(BIRD, TOLD[FISH]): "Yes"}, "answers_original"),
        ({(FISH, TOLD[FISH]): "No, it does not."}, "misses_own"),
        ({(FISH, TOLD[FISH]): "It is hard to say"}, "check_unclear"),
        ({(BIRD, TOLD[FISH]): ""}, "check_unclear"),
    ],
)
def test_what_the_model_says_is_the_reason(said: Said, reason: str) -> None:
    for result, identity in ((written(said)[0], "i1"), (coupled(said)[0], "g")):
        assert not result.rows
        assert [(lost["id"], lost["stage"], lost["reason"]) for lost in result.quarantine] == [
            (identity, "pairs", reason)
        ]


@pytest.mark.parametrize(
    ("said", "reason"), [({(FISH, TOLD[BIRD]): "yes"}, "answers_original"), ({(BIRD, TOLD[BIRD]): "no"}, "misses_own")]
)
def test_a_mirror_is_asked_about_too(said: Said, reason: str) -> None:
    assert written(said)[0].rows, "without a mirror nobody asks"
    for result in (written(said, mirror=True)[0], coupled(said)[0]):
        assert [lost["reason"] for lost in result.quarantine] == [reason]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("yes", True),
        (" **No**.", False),
        ("Yes, since no part is missing", True),
        ("The answer is: no", False),
        ("<think>", None),
        ("There is no bird in it", None),
        ("1", None),
        ("", None),
    ],
)
def test_one_word_is_asked_for(text: str, wanted: bool | None) -> None:
    assert yes_or_no(text) is wanted


class Judged:
    """A program that spends ten tokens on each unit."""

    def unit_of(self, row: dict[str, Any]) -> str:
        return str(row["id"])

    async def __call__(self, engine: Any, row: dict[str, Any]) -> UnitResult:
        return UnitResult(self.unit_of(row), rows=[row], counters={"completion_tokens": 10, "kept": 0})


@pytest.mark.parametrize("said", ["no", "yes"])
def test_what_the_judge_was_asked_is_counted_whatever_it_says(said: str) -> None:
    program = AskedFirst(Judged(), ASKING, 5, 1, "judgments")
    row = {"id": "p1", "instruction": BIRD, "modified_instruction": "", "rejected": TOLD[FISH]}
    (result,) = run(program, replay({(BIRD, TOLD[FISH]): said}), row)
    assert [fault["reason"] for fault in result.quarantine] == ([] if said == "no" else ["answers_original"])
    asked = result.counters["completion_tokens"] - (10 if said == "no" else 0)
    assert asked > 0
    assert result.counters["samples"] == 1
