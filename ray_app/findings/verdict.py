"""Whether a run has learned something, in a sentence that its figures carry. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from ray_app.findings.set_results import HELDOUT, Line, SetResult, clearly_better, set_results
from ray_app.run.folder import DPO, parts_of

MOSTLY_UNPARSED = 0.3  # from here on a seed's score says more of its form than of its judgment
DOUBTS = {"synthetic_only", "shortcut_instruction"}  # alarms that speak against the verdict itself
LITTLE = 0.1  # an accuracy that is not for sure further than that above chance is little
CONSTANT = 0.1  # a judge whose verdicts are nearly all of one place
FEW = 10  # rows with a verdict, below which no share of them is told
BARS = {  # what needs no judgment, as a sentence and as a line of figures name it
    "length_baseline": "always the longer response",
    "overlap_baseline": "always the one with more of the instruction's words",
}
SHORT = {"length_baseline": "always the longer", "overlap_baseline": "more words of the instruction"}
WIDE = 0.05  # an interval that reaches further than that to a side leaves most questions open


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
    good = clearly_better(gold)
    bar = _bar(good or gold)
    if not good:
        return f"Not shown: {judge} is on no set with gold labels clearly better than {bar}{_looked_at(gold)}."
    compared = [result for result in good if result.seed]
    learned = [result for result in compared if result.better_than_seed] if compared else good
    told = f"{judge} is better than {bar} on {_named(learned or good)}"
    if learned and (as_seed := [result.name for result in good if result not in learned]):
        told += f", on {', '.join(as_seed)} not clearly more than the seed"
    rest = len(gold) - len(good)
    told += f", and not on the other {f'{rest} sets' if rest > 1 else 'set'}" if rest else ""
    told += _looked_at(gold)
    if not learned:
        return f"Not shown: {told}, but not clearly better there than the seed model, which was not trained."
    little = all(result.last["low"] < result.chance + LITTLE for result in learned)
    answer = "A little" if little else "Yes" if 2 * len(learned) > len(gold) else "In part"
    return f"{'Doubtful' if alarms & DOUBTS else answer}: {told}."


def _named(results: Sequence[SetResult]) -> str:
    """Sets, and the best figure on them."""
    best = max(float(result.last["value"]) for result in results)
    return f"{', '.join(result.name for result in results)} (at best {100 * best:.0f} %)"


def _bar(results: Sequence[SetResult]) -> str:
    """What a judge has to be better than on these sets, as far as it was measured."""
    known = Counter(baseline.name for result in results for baseline in result.baselines)
    bars = [
        told + " (where that was measured)" * (known[name] < len(results)) for name, told in BARS.items() if known[name]
    ]
    return " and than ".join(["chance", *bars])


def _looked_at(gold: Sequence[SetResult]) -> str:
    """That more sets were looked at than one, and what was made of it."""
    return f" ({len(gold)} sets were looked at, which is allowed for)" if len(gold) > 1 else ""


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
    text += "".join(f"; {SHORT[one.name]}: {100 * one.score:.0f} %{_apart(one.beyond)}" for one in result.baselines)
    return text + ("; the checkpoint was selected on it, so its figure flatters." if result.selected else ".")


def _apart(beyond: Line | None) -> str:
    """The difference to a baseline, paired by rows."""
    if beyond is None or beyond["low"] is None:
        return ""
    value, low, high = (100 * beyond[name] for name in ("value", "low", "high"))
    return f", on the same rows {value:+.1f} points [{low:+.0f} – {high:+.0f}]"


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
