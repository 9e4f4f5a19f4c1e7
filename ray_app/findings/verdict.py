"""Whether a run has learned something, in a sentence that its figures carry. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Line = Mapping[str, Any]
HELDOUT, VALIDATION = "heldout", "validation"
MOSTLY_UNPARSED = 0.3  # from here on a seed's score says more of its form than of its judgment


@dataclass(frozen=True)
class SetResult:
    """One set: the seed's accuracy, the last judge's, and what they are held against. Estimates as in a summary."""

    name: str
    iteration: int
    seed: Mapping[str, Any] | None
    last: Mapping[str, Any]
    longer: float | None  # what always the longer response scores
    selected: bool  # whether the checkpoint was selected on this set
    chance: float  # what a coin scores
    seed_unparsed: float | None = None  # the seed's answers that hold no verdict: each counts as wrong

    @property
    def better_than_chance(self) -> bool:
        """The interval lies above chance and above what always the longer one scores."""
        low = self.last["low"]
        return low is not None and low > max(self.chance, self.longer or 0.0)

    @property
    def better_than_seed(self) -> bool:
        """The intervals do not touch. (The loop compares neighbouring iterations on the same rows, which is finer.)"""
        low, high = self.last["low"], self.seed["high"] if self.seed else None
        return low is not None and high is not None and low > high


def set_results(metrics: Sequence[Line]) -> list[SetResult]:
    """The pairwise and best-of sets of the last evaluated iteration, each beside the seed's."""
    found = by_iteration(metrics, "headline")
    if not found or max(found) == 0:
        return []
    last = max(found)
    selected = any(
        line["stage"] == "training" and line["iteration"] == last and len(line["extra"].get("candidates") or []) > 1
        for line in metrics
    )
    results = []
    for name, headline in found[last].items():
        seed = found.get(0, {}).get(name, {})
        figure, before, unparsed = main(headline), main(seed), (seed.get("unparsed_rate") or {}).get("value")
        if figure is not None and figure["value"] is not None:
            longer = (headline.get("length_baseline") or {}).get("value")
            results.append(
                SetResult(
                    name, last, before, figure, longer, selected and name == VALIDATION, chance_of(headline), unparsed
                )
            )
    return results


def by_iteration(metrics: Sequence[Line], name: str) -> dict[int, dict[str, Line]]:
    """{iteration: {set: its `name`}} of the evaluations that have one: `headline` or `change`."""
    found: dict[int, dict[str, Line]] = {}
    for line in metrics:
        if line["stage"] == "evaluation" and line["extra"].get(name):
            found.setdefault(line["iteration"], {})[line["extra"]["set"]] = line["extra"][name]
    return dict(sorted(found.items()))


def chance_of(headline: Line) -> float:
    """What a coin scores on a set: one half of pairs, a quarter of best-of-four rows, which have an accuracy and a rate
    of unparsed answers alone.
    """
    return 0.25 if set(headline) == {"accuracy", "unparsed_rate"} else 0.5


def main(headline: Line) -> Any:
    """The accuracy of a set's headline (or its votes', or a score); None where there is none."""
    return next((headline[name] for name in ("accuracy", "vote_accuracy", "score") if headline.get(name)), None)


def sentences(metrics: Sequence[Line], alarms: Sequence[Line]) -> list[str]:
    """The verdict: what was learned, on what that rests, and what to distrust."""
    results = set_results(metrics)
    if not results:
        return ["Nothing is trained and evaluated yet: there is nothing to say about learning."]
    gold = [result for result in results if result.name != HELDOUT]
    said = [_learned(gold, results[0].iteration)]
    if alarms:
        names = ", ".join(sorted({str(alarm["name"]).replace("_", " ") for alarm in alarms}))
        said.append(f"Distrust it for: {names} (the alarms say why).")
    return said + [_told(result) for result in sorted(results, key=lambda result: result.name == HELDOUT)]


def _learned(gold: Sequence[SetResult], iteration: int) -> str:
    after = f"After {iteration} iteration{'s' * (iteration != 1)} the judge"
    if not gold:
        return f"{after} was evaluated on its own synthetic pairs alone: that says nothing about people's choices."
    measured = any(result.longer is not None for result in gold)
    bar = "chance and than always the longer response" if measured else "chance"
    good = [result for result in gold if result.better_than_chance]
    if not good:
        return f"{after} is on no set with gold labels clearly better than {bar}."
    best = max(good, key=lambda result: float(result.last["value"]))
    size = f"at best {100 * best.last['value']:.0f} %"
    others = "" if len(good) == len(gold) else f", and not on the other {len(gold) - len(good)}"
    return f"{after} is better than {bar} on {', '.join(result.name for result in good)} ({size}){others}."


def _told(result: SetResult) -> str:
    name = "held-out synthetic pairs" if result.name == HELDOUT else result.name
    text = f"{name}: {_estimate(result.last)}"
    if result.seed is not None and result.seed["value"] is not None:
        text += f", the seed {_estimate(result.seed)}"
        text += "" if result.better_than_seed else " (not clearly better)"
        if result.seed_unparsed is not None and result.seed_unparsed >= MOSTLY_UNPARSED:
            text += f", {100 * result.seed_unparsed:.0f} % of its answers without a verdict"
    if result.longer is not None:
        text += f"; always the longer: {100 * result.longer:.0f} %"
    return text + ("; the checkpoint was selected on it, so its figure flatters." if result.selected else ".")


def _estimate(figure: Line) -> str:
    bounds = "" if figure["low"] is None else f" [{100 * figure['low']:.0f}–{100 * figure['high']:.0f}]"
    return f"{100 * figure['value']:.1f} %{bounds} of {figure['n']}"
