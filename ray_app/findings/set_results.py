"""The figures of a run's sets, as its verdict, alarms and charts ask for them; where a judge is better. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

from ray_app.findings.naming import BASELINE, FIRST_JUDGE, judge_name, lasting
from ray_app.run.folder import selected_of_several

Line = Mapping[str, Any]
HELDOUT, VALIDATION = "heldout", "validation"
BASELINES = {"length_baseline": "beyond_longer", "overlap_baseline": "beyond_overlap"}  # and how far a judge is above
COIN = 0.5  # what it scores of pairs
TAIL = 0.025  # chance, over all sets together, that a judge which is no better than the bar is called better on one


@dataclass(frozen=True)
class Baseline:
    """What needs no judgment, on one set: what it scores, and the judge's accuracy less that on the same rows (None: a
    run of before that difference was measured).
    """

    name: str  # one of BASELINES
    score: float
    beyond: Line | None


@dataclass(frozen=True)
class SetResult:
    """One set: the accuracy of the judge that goes on, and what it is held against. Estimates as in a summary."""

    name: str
    iteration: int
    seed: Mapping[str, Any] | None
    last: Mapping[str, Any]
    selected: bool  # whether the checkpoint was selected on this set
    chance: float  # what a coin scores
    seed_unparsed: float | None = None  # the seed's answers that hold no verdict: each counts as wrong
    unparsed: float | None = None  # the same of the judge that goes on
    first: float | None = None  # its verdicts that are for the response shown first
    baselines: tuple[Baseline, ...] = ()  # those that were measured
    phase: str = ""  # of the judge: the second training of its iteration
    others: tuple[tuple[str, Mapping[str, Any]], ...] = ()  # (name, accuracy) of the first judge, other prompts, SFT

    @property
    def p_value(self) -> float:
        """Of a judge that is no better than chance, or no better than what needs no judgment: how probable such figures
        are (the largest of them; normal, with the spread that the intervals tell).
        """
        found = [_one_sided(self.last, self.chance)]
        for baseline in self.baselines:
            figure, bar = (self.last, baseline.score) if baseline.beyond is None else (baseline.beyond, 0.0)
            found.append(_one_sided(figure, bar))
        return max(found)

    @property
    def better_than_seed(self) -> bool:
        """The intervals do not touch. (The loop compares neighbouring iterations on the same rows, which is finer.)"""
        low, high = self.last["low"], self.seed["high"] if self.seed else None
        return low is not None and high is not None and low > high


def _one_sided(figure: Mapping[str, Any], bar: float) -> float:
    """The probability of such a figure, or a larger one, where the truth is `bar`."""
    if figure["low"] is None or figure["value"] <= figure["low"]:
        return 1.0
    spread = (figure["value"] - figure["low"]) / NormalDist().inv_cdf(1 - TAIL)
    return 1 - NormalDist().cdf((figure["value"] - bar) / spread)


def clearly_better(results: Sequence[SetResult]) -> list[SetResult]:
    """The sets on which a judge is better than chance and than what needs no judgment, by Holm's method over all of
    them (Scandinavian Journal of Statistics 6, 1979): of ten sets, one in four judges that learned nothing is better on
    one by chance, if each is looked at alone.
    """
    ordered = sorted(results, key=lambda result: result.p_value)
    passed = 0
    while passed < len(ordered) and ordered[passed].p_value <= TAIL / (len(ordered) - passed):
        passed += 1
    better = {id(result) for result in ordered[:passed]}
    return [result for result in results if id(result) in better]


def set_results(metrics: Sequence[Line]) -> list[SetResult]:
    """The pairwise and best-of sets of the last evaluated iteration, each beside the seed's."""
    lines = lasting(metrics)
    found = by_iteration(lines, "headline")
    if not found or max(found) == 0:
        return []
    last = max(found)
    of_last = [line for line in lines if line["iteration"] == last]
    selected = any(line["stage"] == "training" and selected_of_several(line["extra"]) for line in of_last)
    phase = next(line["phase"] for line in of_last if line["stage"] == "evaluation")
    results = []
    for name, headline in found[last].items():
        seed = found.get(0, {}).get(name, {})
        if figure := measured(headline):
            results.append(
                SetResult(
                    *(name, last, measured(seed), figure, selected and name == VALIDATION, chance_of(headline)),
                    seed_unparsed=value_of(seed, "unparsed_rate"),
                    unparsed=value_of(headline, "unparsed_rate"),
                    first=value_of(headline, "first_position_rate"),
                    baselines=baselines_of(headline),
                    phase=phase,
                    others=_others(metrics, name, last if phase else None),
                )
            )
    return results


def _others(metrics: Sequence[Line], name: str, second: int | None) -> tuple[tuple[str, Mapping[str, Any]], ...]:
    """(name, accuracy) of other judges on a set: the first judge, the seed with other prompts, and, of an iteration
    with a second training, the judge before that.
    """
    found = []
    for line in metrics:
        stage = line["stage"]
        before = stage == "evaluation" and second is not None and line["iteration"] == second
        if line["extra"].get("set") != name or not (before or stage in (FIRST_JUDGE, BASELINE)):
            continue
        if figure := measured(line["extra"].get("headline")):
            found.append(("after SFT alone" if before else judge_name(line), figure))
    return tuple(found)


def by_iteration(metrics: Sequence[Line], name: str) -> dict[int, dict[str, Line]]:
    """{iteration: {set: its `name`}} of the evaluations that have one: `headline` or `change`."""
    found: dict[int, dict[str, Line]] = {}
    for line in metrics:
        if line["stage"] == "evaluation" and line["extra"].get(name):
            found.setdefault(line["iteration"], {})[line["extra"]["set"]] = line["extra"][name]
    return dict(sorted(found.items()))


def pooled(figures: Sequence[Line]) -> tuple[float, float]:
    """The accuracy over the rows of several sets, and its lower bound: sets are independent, and each weighs as much as
    it has rows, so that the best of many small ones does not speak for the others.
    """
    rows = sum(figure["n"] for figure in figures)
    value = sum(figure["n"] * figure["value"] for figure in figures) / rows
    spread = math.sqrt(sum((figure["n"] * (figure["value"] - figure["low"])) ** 2 for figure in figures)) / rows
    return value, value - spread


def chance_of(headline: Line) -> float:
    """What a coin scores on a set: one half of pairs, a quarter of best-of-four rows, which have an accuracy and a rate
    of unparsed answers alone.
    """
    return 0.25 if set(headline) == {"accuracy", "unparsed_rate"} else COIN


def value_of(headline: Line, name: str) -> float | None:
    """A figure of a set's headline; None where it has none, or nothing was measured."""
    found: float | None = (headline.get(name) or {}).get("value")
    return found


def baselines_of(headline: Line) -> tuple[Baseline, ...]:
    """Those of `BASELINES` that were measured on a set."""
    scores = ((name, value_of(headline, name)) for name in BASELINES)
    return tuple(
        Baseline(name, score, beyond_of(headline, BASELINES[name])) for name, score in scores if score is not None
    )


def beyond_of(headline: Line, name: str) -> Line | None:
    """The accuracy less what a baseline scores, by the difference's name; None where it was not measured."""
    found: Line | None = headline.get(name)
    return found if found and found["value"] is not None else None


def main(headline: Line) -> Any:
    """The accuracy of a set's headline (or its votes', or a score); None where there is none."""
    return next((headline[name] for name in ("accuracy", "vote_accuracy", "score") if headline.get(name)), None)


def measured(headline: Line | None) -> Any:
    """The same; None too where no row gave it a value."""
    figure = main(headline or {})
    return figure if figure and figure["value"] is not None else None
