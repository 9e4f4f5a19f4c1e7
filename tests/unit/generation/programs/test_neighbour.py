"""Two instructions, two answers: a pair and its mirror, each response once the better one."""

from __future__ import annotations

from typing import Any

from replaying import Call, Replay, run

from ray_app.base.ngrams import Contamination
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


def test_couples_that_the_instructions_words_tell_both_ways_are_left_out() -> None:
    told = {BIRD: "A bird that sings: the nightingale.", FISH: "A fish of the lake: the trout."}
    one_way = told | {FISH: "The trout, no bird."}
    gate = Gate(beyond_words=True)
    result, _ = made(told, gate)
    assert [lost["reason"] for lost in result.quarantine] == ["words_tell"]
    assert not result.rows
    for answers, asked in ((one_way, gate), (told, Gate())):
        assert len(made(answers, asked)[0].rows) == 2


def coupled(first: str, second: str, gate: Gate) -> list[str]:
    """Reasons for which no pair is made of two instructions with plain answers."""
    answers = {first: "The nightingale sings at night.", second: "The lake trout lives longest."}
    engine = Replay(lambda call: answers[call.prompt])
    program = NeighbourProgram(Sampling(), gate, "g", run_seed=5, iteration=1)
    (result,) = run(program, engine, {"group": "g", "first": source("i1", first), "second": source("i2", second)})
    assert len(result.rows) == (0 if result.quarantine else 2)
    return [lost["reason"] for lost in result.quarantine]


def test_the_gate_does_not_depend_on_which_of_the_two_comes_first() -> None:
    """The answer in French also is a poem about cats, whichever instruction stands first in the file."""
    long = " ".join(f"This is sentence {n} of a long prompt." for n in range(40))
    for first, second, gate, reason in (
        ("Write a poem about cats", "Write a poem about cats in French", Gate(heuristics=True), "adds_to_original"),
        (long, f"{long} Leave out all of the even ones.", Gate(), "modified_equals_original"),
    ):
        assert coupled(first, second, gate) == [reason]
        assert coupled(second, first, gate) == [reason]


def test_a_real_instruction_is_not_asked_whether_it_is_one() -> None:
    gate = Gate(heuristics=True)
    german = "Nenne einen Fisch, der in einem See lebt und nicht klein ist."
    for other in ("Birds of the night", german):
        assert coupled(BIRD, other, gate) == []
        assert coupled(other, BIRD, gate) == []


def test_a_response_of_a_benchmark_costs_the_couple() -> None:
    grams = Contamination(6, min_words=3)
    grams.add(["which fish lives longest in a cold lake", "the lake trout"])
    shown, short = "Which fish lives longest in a lake?", "It is the lake trout."
    for said, reasons in ((shown, ["contaminated_response"]), (short, [])):
        for answers in ({BIRD: "The nightingale.", FISH: said}, {BIRD: said, FISH: "The perch."}):
            engine = Replay(lambda call, told=answers: told[call.prompt])
            program = NeighbourProgram(Sampling(), Gate(), "g", run_seed=5, iteration=1, contamination=grams)
            (result,) = run(program, engine, COUPLE)
            assert [lost["reason"] for lost in result.quarantine] == reasons
