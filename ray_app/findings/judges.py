"""Every judge of a run on every set, as rows of a table: accuracy, its controls, and what its verdicts cost. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ray_app.findings.naming import BASELINE, FIRST_JUDGE, judge_name
from ray_app.findings.set_results import HELDOUT, VALIDATION, beyond_of, measured, value_of
from ray_app.findings.verdict import estimate
from ray_app.metrics.cost import amount
from ray_app.run.folder import parts_of, selected_of_several

Line = Mapping[str, Any]
MISSING = "–"
BESIDE = {
    "position_consistent_accuracy": "right in both orders",
    "unparsed_rate": "no verdict",
    "first_position_rate": "for the one shown first",
    "mirrored_accuracy": "mirror too",
    "instruction_sensitivity": "changes with the instruction",
    "length_baseline": "always the longer",
    "overlap_baseline": "always more words of the instruction",
    "accuracy_against_overlap": "right where the words mislead",
}
OF_FEW = {"instruction_sensitivity", "accuracy_against_overlap"}  # figures of some of a set's rows: they tell how many
BEYOND = {
    "beyond_longer": "above always the longer",
    "beyond_overlap": "above more words of the instruction",
}
SAID = {
    "explanation_words_median": "words besides the verdict (median)",
    "bare_verdicts": "bare verdicts",
    "distinct_explanations": "distinct",
    "telling_explanations": "tell the responses apart",
    "contradicting_explanations": "verdict against the explanation",
}
COSTS = {"seconds": "seconds", "prompt_tokens": "prompt tokens", "completion_tokens": "new tokens", "price": "price"}


@dataclass(frozen=True)
class Judged:
    """One judge on one set. `headline` and `cost` as its summary has them; `accuracy` is the headline's."""

    judge: str
    name: str
    accuracy: Line
    headline: Line
    cost: Line
    said: Line  # what its judgments say besides their verdict
    selected: bool  # whether the checkpoint is the best of several on this set


def table(metrics: Sequence[Line], costs: Mapping[tuple[str, int, str, str], Line]) -> dict[str, Any]:
    """{columns, rows, notes}: a column that no row has a figure for is left out. `costs`: the block `cost` of a summary
    by `place_of` its line.
    """
    found = list(_judged(metrics, costs))
    said = [name for name in SAID if any(one.said.get(name) is not None for one in found)]
    apart = [name for name in BEYOND if any(beyond_of(one.headline, name) for one in found)]
    shares = [name for name in BESIDE if any(value_of(one.headline, name) is not None for one in found)]
    each = [name for name in COSTS if any(_each(one).get(name) is not None for one in found)]
    columns = ["accuracy [95 %]", "n", *(BESIDE[name] for name in shares)]
    columns += [BEYOND[name] for name in apart] + [SAID[name] for name in said] + [COSTS[name] for name in each]
    rows = [
        {
            "judge": one.judge,
            "set": ("held-out pairs" if one.name == HELDOUT else one.name) + " (selected on)" * one.selected,
            "cells": [
                estimate(one.accuracy),
                f"{one.accuracy['n']:,}",
                *(_percent(one.headline.get(name), name in OF_FEW) for name in shares),
                *(_points(beyond_of(one.headline, name)) for name in apart),
                *(_said(name, one.said.get(name)) for name in said),
                *(amount(_each(one).get(name), MISSING) for name in each),
            ],
        }
        for one in found
    ]
    notes = dict.fromkeys(note for one in found for note in one.cost.get("notes", ()))
    return {"columns": columns, "rows": rows, "notes": list(notes), "priced": bool(each)}


def place_of(line: Line) -> tuple[str, int, str, str]:
    """(stage, iteration, prompt, set) of the line of an evaluation: where its summary lies."""
    extra = line["extra"]
    return line["stage"], line["iteration"], str(extra.get("prompt") or ""), str(extra.get("set"))


def evaluations(metrics: Sequence[Line]) -> list[Line]:
    """The lines of all evaluations, those of judges that are not trained here first, then by iteration."""
    stages = (FIRST_JUDGE, "evaluation", BASELINE)

    def key(line: Line) -> tuple[int, str, int]:
        phase, stage = parts_of(line["stage"])
        return line["iteration"], phase, stages.index(stage)

    return sorted((line for line in metrics if parts_of(line["stage"])[1] in stages), key=key)


def _judged(metrics: Sequence[Line], costs: Mapping[tuple[str, int, str, str], Line]) -> Iterator[Judged]:
    chosen = {
        (line["iteration"], parts_of(line["stage"])[0])
        for line in metrics
        if parts_of(line["stage"])[1] == "training" and selected_of_several(line["extra"])
    }
    for line in evaluations(metrics):
        extra, phase = line["extra"], parts_of(line["stage"])[0]
        if accuracy := measured(headline := extra.get("headline")):
            cost, said = costs.get(place_of(line)) or {}, extra.get("explanations") or {}
            selected = extra["set"] == VALIDATION and (line["iteration"], phase) in chosen
            yield Judged(judge_name(line), extra["set"], accuracy, headline, cost, said, selected)


def _each(one: Judged) -> Line:
    found: Line = one.cost.get("per_1000") or {}
    return found


def _percent(figure: Line | None, of_few: bool = False) -> str:
    if not figure or figure["value"] is None:
        return MISSING
    return f"{100 * figure['value']:.0f} %" + f" of {figure['n']:,}" * of_few


def _points(figure: Line | None) -> str:
    """A difference of accuracies, with its interval."""
    if figure is None:
        return MISSING
    bounds = "" if figure["low"] is None else f" [{100 * figure['low']:+.0f} – {100 * figure['high']:+.0f}]"
    return f"{100 * figure['value']:+.1f}{bounds}"


def _said(name: str, value: float | None) -> str:
    if value is None:
        return MISSING
    return f"{value:.0f}" if name == "explanation_words_median" else f"{100 * value:.0f} %"
