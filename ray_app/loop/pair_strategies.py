"""The strategies of making pairs, by name: what is asked for one row, of which rows, and which prompts it shows.

A new one is a program in `generation/programs/` and an entry here; its name is a value of `pairs.strategy`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ray_app.engine.base import sampling_from
from ray_app.generation.pair_gate import Gate
from ray_app.generation.programs.asking import Asking
from ray_app.generation.programs.checked import CheckedProgram
from ray_app.generation.programs.neighbour import NeighbourProgram
from ray_app.generation.programs.pair import PairProgram
from ray_app.loop.config import IterateSettings
from ray_app.loop.data_settings import PairSettings
from ray_app.loop.stages.inputs import Inputs

Program = Callable[[IterateSettings, Inputs, int], Any]  # of the settings, for an iteration


def _none(part: PairSettings) -> tuple[str, ...]:
    return ()


@dataclass(frozen=True)
class Strategy:
    """How pairs are made."""

    program: Program
    prompts: Callable[[PairSettings], tuple[str, ...]] = _none  # settings `prompts.NAME` that it shows
    key: tuple[str, ...] = ("instruction_id",)  # what names a unit of work
    coupled: bool = False  # a unit is a couple of neighbouring instructions, not one instruction
    own: frozenset[str] = frozenset()  # settings of pairs that no other strategy reads


def gate_of(part: PairSettings) -> Gate:
    """The gate that these settings ask for."""
    return Gate(part.max_similarity, part.heuristics, part.max_length_ratio, part.beyond_words)


def prompts_of(part: PairSettings) -> tuple[str, ...]:
    """Settings `prompts.NAME` of all that is shown to the generator."""
    asked = ("check_response",) if part.ask_generator else ()
    return (*STRATEGIES[part.strategy].prompts(part), *asked)


def asking_of(settings: IterateSettings, inputs: Inputs) -> Asking | None:
    """How the generator is asked about its pairs, where it is."""
    part = settings.pairs
    return Asking(inputs.prompt("check_response"), sampling_from(part.ask_sampling)) if part.ask_generator else None


def _shared(settings: IterateSettings, inputs: Inputs, iteration: int) -> dict[str, Any]:
    """What every program is told."""
    part = settings.pairs
    return {
        "sampling": sampling_from(part.sampling),
        "gate": gate_of(part),
        "generator": settings.generator.model,
        "run_seed": settings.seed,
        "iteration": iteration,
        "contamination": inputs.generated_contamination(),
    }


def _pair_program(settings: IterateSettings, inputs: Inputs, iteration: int) -> PairProgram:
    part = settings.pairs
    return PairProgram(
        **_shared(settings, inputs, iteration),
        strategy=part.strategy,
        one_call=part.format == "one_call",
        modify=inputs.prompt("modify_instruction"),
        modify_and_respond=inputs.prompt("modify_and_respond"),
        worse=inputs.prompt("worse_response"),
        modify_sampling=sampling_from(part.modify_sampling or part.sampling),
        mirror=part.mirror,
        asking=asking_of(settings, inputs),
    )


def _neighbour_program(settings: IterateSettings, inputs: Inputs, iteration: int) -> NeighbourProgram:
    return NeighbourProgram(**_shared(settings, inputs, iteration), asking=asking_of(settings, inputs))


def _checked_program(settings: IterateSettings, inputs: Inputs, iteration: int) -> CheckedProgram:
    part = settings.pairs
    return CheckedProgram(**_shared(settings, inputs, iteration), samples=part.samples, grader=part.grader)


def _modify_prompts(part: PairSettings) -> tuple[str, ...]:
    return ("modify_and_respond",) if part.format == "one_call" else ("modify_instruction",)


STRATEGIES: Mapping[str, Strategy] = {
    "checked_answer": Strategy(_checked_program, own=frozenset({"samples", "grader"})),
    "modified_instruction": Strategy(_pair_program, _modify_prompts),
    "worse_response": Strategy(_pair_program, lambda part: ("worse_response",)),
    "neighbour_instruction": Strategy(_neighbour_program, key=("group",), coupled=True, own=frozenset({"neighbours"})),
}
