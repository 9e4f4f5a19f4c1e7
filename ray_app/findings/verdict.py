"""Whether a run has learned something, in a sentence that its figures carry. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ray_app.findings.naming import BASELINE, FIRST_JUDGE, judge_name, lasting
from ray_app.run.folder import DPO, parts_of

Line = Mapping[str, Any]
HELDOUT, VALIDATION = "heldout", "validation"
COIN = 0.5  # what it scores of pairs
MOSTLY_UNPARSED = 0.3  # from here on a seed's score says more of its form than of its judgment
DOUBTS = {"synthetic_only", "shortcut_instruction"}  # alarms that speak against the verdict itself
LITTLE = 0.1  # an accuracy that is not for sure further than that above chance is little
CONSTANT = 0.1  # a judge whose verdicts are nearly all of one place
FEW = 10  # rows with a verdict, below which no share of them is told
WIDE = 0.05  # an interval that reaches further than that to a side leaves most questions open


@dataclass(frozen=True)
class SetResult:
    """One set: the accuracy of the judge that goes on, and what it is held against. Estimates as in a summary."""

    name: str
    iteration: int
    seed: Mapping[str, Any] | None
    last: Mapping[str, Any]
    longer: float | None  # what always the longer response scores
    selected: bool  # whether the checkpoint was selected on this set
    chance: float  # what a coin scores
    seed_unparsed: float | None = None  # the seed's answers that hold no verdict: each counts as wrong
    unparsed: float | None = None  # the same of the judge that goes on
    first: float | None = None  # its verdicts that are for the response shown first
    phase: str = ""  # of the judge: the second training of its iteration
    others: tuple[tuple[str, Mapping[str, Any]], ...] = ()  # (name, accuracy) of the first judge, other prompts, SFT

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
    lines = lasting(metrics)
    found = by_iteration(lines, "headline")
    if not found or max(found) == 0:
        return []
    last = max(found)
    of_last = [line for line in lines if line["iteration"] == last]
    selected = any(line["stage"] == "training" and len(line["extra"].get("candidates") or []) > 1 for line in of_last)
    phase = next(line["phase"] for line in of_last if line["stage"] == "evaluation")
    results = []
    for name, headline in found[last].items():
        seed = found.get(0, {}).get(name, {})
        longer = value_of(headline, "length_baseline")
        if figure := measured(headline):
            results.append(
                SetResult(
                    *(name, last, measured(seed), figure, longer, selected and name == VALIDATION, chance_of(headline)),
                    seed_unparsed=value_of(seed, "unparsed_rate"),
                    unparsed=value_of(headline, "unparsed_rate"),
                    first=value_of(headline, "first_position_rate"),
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


def chance_of(headline: Line) -> float:
    """What a coin scores on a set: one half of pairs, a quarter of best-of-four rows, which have an accuracy and a rate
    of unparsed answers alone.
    """
    return 0.25 if set(headline) == {"accuracy", "unparsed_rate"} else COIN


def value_of(headline: Line, name: str) -> float | None:
    """A figure of a set's headline; None where it has none, or nothing was measured."""
    found: float | None = (headline.get(name) or {}).get("value")
    return found


def main(headline: Line) -> Any:
    """The accuracy of a set's headline (or its votes', or a score); None where there is none."""
    return next((headline[name] for name in ("accuracy", "vote_accuracy", "score") if headline.get(name)), None)


def measured(headline: Line | None) -> Any:
    """The same; None too where no row gave it a value."""
    figure = main(headline or {})
    return figure if figure and figure["value"] is not None else None


def sentences(metrics: Sequence[Line], alarms: Sequence[Line], second: bool = False) -> list[str]:
    """The verdict: what was learned, on what that rests, and what to distrust. `second`: the run trains twice in an
    iteration.
    """
    results = set_results(metrics)
    if not results:
        return ["Nothing is trained and evaluated yet: there is nothing to say about learning."]
    gold = [result for result in results if result.name != HELDOUT]
    judge = _judge_of(results[0], second or any(parts_of(line["stage"])[0] for line in metrics))
    said = [_learned(gold, judge, {str(alarm["name"]) for alarm in alarms}), *_form(gold)]
    if alarms:
        names = ", ".join(sorted({str(alarm["name"]).replace("_", " ") for alarm in alarms}))
        said.append(f"Distrust it for: {names} (the alarms say why).")
    return said + [_told(result) for result in sorted(results, key=lambda result: result.name == HELDOUT)]


def _judge_of(result: SetResult, second: bool) -> str:
    """Whose figures these are, as a sentence begins."""
    judge = f"after {result.iteration} iteration{'s' * (result.iteration != 1)} the judge"
    if not second:
        return judge
    return f"{judge} (SFT, then {DPO.upper()})" if result.phase else f"{judge} (SFT; its DPO is not evaluated yet)"


def _learned(gold: Sequence[SetResult], judge: str, alarms: set[str]) -> str:
    if not gold:
        only = f"{judge} was evaluated on its own synthetic pairs alone"
        return f"Not known: {only}: that says nothing about people's choices."
    measured = any(result.longer is not None for result in gold)
    bar = "chance and than always the longer response" if measured else "chance"
    good = [result for result in gold if result.better_than_chance]
    if not good:
        return f"Not shown: {judge} is on no set with gold labels clearly better than {bar}."
    best = max(good, key=lambda result: float(result.last["value"]))
    size = f"at best {100 * best.last['value']:.0f} %"
    rest = len(gold) - len(good)
    others = f", and not on the other {f'{rest} sets' if rest > 1 else 'set'}" if rest else ""
    told = f"{judge} is better than {bar} on {', '.join(result.name for result in good)} ({size}){others}"
    compared = [result for result in good if result.seed]
    if compared and not any(result.better_than_seed for result in compared):
        return f"Not shown: {told}, but not clearly better there than the seed model, which was not trained."
    little = all(result.last["low"] < result.chance + LITTLE for result in good)
    answer = "Doubtful" if alarms & DOUBTS else "A little" if little else "Yes"
    return f"{answer}: {told}."


def _form(gold: Sequence[SetResult]) -> list[str]:
    """What the figures say of the form of the judge's answers rather than of its judgment."""
    said = []
    learned = [r for r in gold if r.unparsed is not None and (r.seed_unparsed or 0) >= MOSTLY_UNPARSED > 2 * r.unparsed]
    if learned:
        was, now = _range([r.seed_unparsed or 0.0 for r in learned]), _range([r.unparsed or 0.0 for r in learned])
        text = f"It learned to give a verdict at all: {was} of the seed's answers hold none, now {now}"
        both = [(r.name, shares) for r in learned if (shares := _among_verdicts(r))]
        figures = ", ".join(f"{name} {100 * before:.0f} → {100 * after:.0f} %" for name, (before, after) in both)
        said.append(text + (f". Right among the verdicts that there are: {figures}." if figures else "."))
    constant = [r for r in gold if r.first is not None and min(r.first, 1 - r.first) <= CONSTANT]
    if constant:
        places = {"second" if (r.first or 0) < 0.5 else "first" for r in constant}
        place = f"shown {places.pop()}" if len(places) == 1 else "in one place"
        names = ", ".join(r.name for r in constant)
        said.append(
            f"On {names} nearly all its verdicts are for the response {place}, whatever it says: a constant answer is "
            "right in half of all pairs."
        )
    return said


def _among_verdicts(result: SetResult) -> tuple[float, float] | None:
    """(seed, now): right among the answers that hold a verdict; None where the seed gave too few of them."""
    if result.seed is None or result.seed["n"] * (1 - (result.seed_unparsed or 0)) < FEW:
        return None
    before = result.seed["value"] / (1 - (result.seed_unparsed or 0))
    return before, result.last["value"] / (1 - (result.unparsed or 0))


def _range(shares: Sequence[float]) -> str:
    low, high = (f"{100 * share:.0f}" for share in (min(shares), max(shares)))
    return f"{low} %" if low == high else f"{low}–{high} %"


def _told(result: SetResult) -> str:
    name = "held-out synthetic pairs" if result.name == HELDOUT else result.name
    text = f"{name}: {_of_rows(result.last)}"
    if result.seed:
        text += f", the seed {_of_rows(result.seed)}"
        text += "" if result.better_than_seed else " (not clearly better)"
        if result.seed_unparsed is not None and result.seed_unparsed >= MOSTLY_UNPARSED:
            text += f", {100 * result.seed_unparsed:.0f} % of its answers without a verdict"
    text += "".join(f"; {other}: {_of_rows(figure)}" for other, figure in result.others)
    if result.longer is not None:
        text += f"; always the longer: {100 * result.longer:.0f} %"
    return text + ("; the checkpoint was selected on it, so its figure flatters." if result.selected else ".")


def trusted(metrics: Sequence[Line], alarms: Sequence[Line]) -> list[str]:
    """Whether the figures can be trusted: what alarms say, and how exactly the best measured set is known."""
    names = {str(alarm["name"]) for alarm in alarms}
    if names:
        many = f"{len(names)} alarm{'s were' if len(names) != 1 else ' was'} raised"
        said = [f"Only with care: {many}. Each says what is wrong, how much, and what to try."]
    else:
        said = ["No alarm was raised: no figure is over its limit (settings: alarms). That alone is no proof."]
    gold = [r for r in set_results(metrics) if r.name != HELDOUT and r.last["low"] is not None]
    if gold:
        best = min(gold, key=lambda result: float(result.last["high"] - result.last["low"]) or 1.0)
        reach = (best.last["high"] - best.last["low"]) / 2
        exact = f"{best.name} (n = {best.last['n']}), known to ± {100 * reach:.0f} points (95 % interval)"
        wide = ": too little to tell most judges apart" if reach > WIDE else ""
        said.append(f"The most exact figure on gold labels: {exact}{wide}.")
    return said


def estimate(figure: Line) -> str:
    """An accuracy with its interval, in percent."""
    bounds = "" if figure["low"] is None else f" [{100 * figure['low']:.0f}–{100 * figure['high']:.0f}]"
    return f"{100 * figure['value']:.1f} %{bounds}"


def _of_rows(figure: Line) -> str:
    return f"{estimate(figure)} of {figure['n']}"
