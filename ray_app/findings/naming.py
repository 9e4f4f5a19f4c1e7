"""How a report names what a run has made: its trainings, stages and judges. Pure.

An iteration has one training, or (`then_dpo`) two: SFT, then DPO from its checkpoint, whose judge goes on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ray_app.run.folder import DPO, parts_of

Line = Mapping[str, Any]
FIRST_JUDGE, BASELINE = "first_judge_evaluation", "baseline_evaluation"  # stages of judges that are not trained here


def at(line: Line) -> int | str | None:
    """Where a line of metrics.jsonl stands on an axis of iterations: 1, and `1 DPO` for a second training."""
    phase, _ = parts_of(line["stage"])
    iteration: int | None = line["iteration"]
    return f"{iteration} {phase.upper()}" if phase else iteration


def in_order(places: Iterable[int | str]) -> list[int | str]:
    """Places on that axis from left to right, each once; what is made once stands first."""

    def key(place: int | str) -> tuple[int, str]:
        number, _, phase = str(place).partition(" ")
        return (int(number) if number.isdigit() else -1), phase

    return sorted(dict.fromkeys(places), key=key)


def where(iteration: int | None, phase: str = "") -> str:
    """What an alarm or a sentence is about: `pairs`, `iteration 1`, `iteration 1, DPO`."""
    if iteration is None:
        return "pairs"
    return f"iteration {iteration}" + (f", {phase.upper()}" if phase else "")


def stage_words(stage: str) -> str:
    """A stage's full name in words: `train set`, `DPO train set`."""
    phase, plain = parts_of(stage)
    return f"{phase.upper()} {plain.replace('_', ' ')}".strip()


def stage_name(line: Line) -> str:
    """A stage in words: `DPO judgments`, `evaluation validation`, `evaluation validation (the first judge, x)`."""
    _, stage = parts_of(line["stage"])
    of_others = stage in (FIRST_JUDGE, BASELINE)
    words = "evaluation" if of_others else stage_words(line["stage"])
    named = f"{words} {line['extra'].get('set') or ''}".strip()
    return f"{named} ({judge_name(line)})" if of_others else named


def judge_name(line: Line) -> str:
    """Whose figures the line of an evaluation holds."""
    phase, stage = parts_of(line["stage"])
    if stage == FIRST_JUDGE:
        return f"the first judge, {line['extra'].get('judge') or 'whose model was not recorded'}"
    if stage == BASELINE:
        return f"the seed with the prompt {line['extra'].get('prompt')}"
    return where(line["iteration"], phase) if line["iteration"] else "the seed"


def with_first_judge(metrics: Sequence[Line], settings: Mapping[str, Any]) -> list[Line]:
    """The lines of a run that did not record its first judge's model in them have it from its settings."""
    model = (settings.get("first_judge") or {}).get("model")
    return [
        {**line, "extra": {"judge": model, **line["extra"]}} if line["stage"] == FIRST_JUDGE and model else line
        for line in metrics
    ]


def evaluated_twice(metrics: Iterable[Line]) -> set[int]:
    """Iterations whose second training is evaluated: its judge goes on, not the first one's."""
    return {line["iteration"] for line in metrics if line["stage"] == f"{DPO}_evaluation"}


def lasting(metrics: Sequence[Line]) -> list[Line]:
    """The lines of evaluations and trainings by their stages' plain names: of an iteration whose second training is
    evaluated those of that one, as its judge goes on; of the others those of the first. `phase` says which.
    """
    second = evaluated_twice(metrics)
    named = [(line, *parts_of(line["stage"])) for line in metrics]
    return [
        {**line, "stage": stage, "phase": phase}
        for line, phase, stage in named
        if stage in ("evaluation", "training") and bool(phase) == (line["iteration"] in second)
    ]
