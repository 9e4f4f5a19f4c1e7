"""Two instructions, two answers: a pair and its mirror, each response once the better one."""

from __future__ import annotations

from typing import Any

from replaying import Call, Replay, run

from ray_app.base.schema import PAIRS
from ray_app.engine.base import Completion, Sampling, UnitResult
from ray_app.generation.pair_gate import Gate
from ray_app.generation.programs.neighbour import NeighbourProgram

BIRD, FISH = "Name a bird that sings at night.", "Name a fish that lives in a cold lake."


def source(identity: str, text: str) -> dict[str, Any]:
    return {"instruction_id": identity, "text": text, "split": "train", "category": identity, "complexity": 2}


COUPLE = {"group": "g", "first": source("i1", BIRD), "second": source("i2", FISH)}


def made(answers: dict[str, Any], gate: Gate | None = None) -> tuple[UnitResult, Replay]:
    def answer(call: Call) -> Any:
        return answers[call.prompt]

    engine = Replay(answer)
    program = NeighbourProgram(Sampling(0.7, 0.9, 100), gate or Gate(), "the generator", run_seed=5, iteration=1)
    (result,) = run(program, engine, COUPLE)
    return result, engine


def test_each_response_is_once_the_better_one() -> None:
    result, engine = made({BIRD: "The nightingale.", FISH: "The lake trout."})
    one, other = result.rows
    assert (one["instruction"], one["chosen"], one["rejected"]) == (BIRD, "The nightingale.", "The lake trout.")
    assert (other["instruction"], other["chosen"], other["rejected"]) == (FISH, "The lake trout.", "The nightingale.")
    assert (one["mirror"], other["mirror"]) == (other["pair_id"], one["pair_id"])
    assert one["group"] == other["group"] == "g"
    assert (one["instruction_id"], other["instruction_id"]) == ("i1", "i2")
    assert (one["modified_instruction"], other["modified_instruction"]) == (FISH, BIRD)
    assert all(set(row) == set(PAIRS.names) and row["strategy"] == "neighbour_instruction" for row in result.rows)
    assert [call.messages for call in engine.calls] == [[{"role": "user", "content": text}] for text in (BIRD, FISH)]
    assert len({call.seed for call in engine.calls}) == 2
    assert engine.most_running == 2


def test_a_fault_of_either_answer_costs_the_couple() -> None:
    same, _ = made({BIRD: "Both.", FISH: "both"})
    cut, _ = made({BIRD: Completion("long", "length", 1, 9), FISH: "x"})
    meta, _ = made({BIRD: "I'm ready to help!", FISH: "The trout."}, Gate(heuristics=True))
    for result, reason in ((same, "equal_responses"), (cut, "cut_off_first"), (meta, "meta_talk")):
        assert not result.rows
        assert [(lost["id"], lost["reason"]) for lost in result.quarantine] == [("g", reason)]
