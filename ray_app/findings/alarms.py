"""Alarms: the signatures of a run that fools its owner. Pure: figures and thresholds in, alarms out.

The paper names three (pairs that mean nothing, a judge that does not find the right one, one that fits only the
synthetic); the others were seen in real runs (docs/report.md tells each, and what to try).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, TypeGuard

from ray_app.findings.facts import ExplanationFacts, PairFacts, Share, VerdictFacts
from ray_app.findings.naming import evaluated_twice
from ray_app.findings.set_results import (
    COIN,
    HELDOUT,
    VALIDATION,
    beyond_of,
    by_iteration,
    chance_of,
    main,
    pooled,
    value_of,
)
from ray_app.findings.settings import AlarmSettings

Line = Mapping[str, Any]


@dataclass(frozen=True)
class Alarm:
    """What was found, where, beside its limit, and what to try. `rows`: ids of the rows that raised it, a few."""

    name: str
    iteration: int | None
    message: str
    advice: str
    value: float
    limit: float
    n: int
    rows: tuple[str, ...] = ()
    phase: str = ""  # the second training of the iteration, where it is about that one's judgments, rows or judge
    set: str = ""  # the evaluation set that the rows are of


@dataclass(frozen=True)
class Evidence:
    """All that alarms look at, by iteration; None stands for pairs that are made once. Of a run that trains twice in an
    iteration there is one of each `phase`, with that phase's lines by their stages' plain names.
    """

    metrics: Sequence[Line]
    pairs: Mapping[int | None, PairFacts] = field(default_factory=dict)
    explanations: Mapping[int, ExplanationFacts] = field(default_factory=dict)
    judgments: Mapping[int, VerdictFacts] = field(default_factory=dict)
    another_first_judge: bool = False  # iteration 1 was judged by another model than the seed
    late_overlap: Mapping[str, int] = field(default_factory=dict)  # {benchmark: instructions that share text with it}
    votes: Mapping[tuple[int, str], VerdictFacts] = field(default_factory=dict)  # by iteration and set
    phase: str = ""


def alarms_of(evidence: Evidence, limits: AlarmSettings) -> list[Alarm]:
    """Every alarm of a run so far, by iteration."""
    found = [
        *_instructions(evidence, limits),
        *(a for iteration, facts in evidence.pairs.items() for a in _pairs(iteration, facts, limits)),
        *_judging(evidence, limits),
        *(a for iteration, facts in evidence.explanations.items() for a in _explanations(iteration, facts, limits)),
        *_evaluations(evidence, limits),
    ]
    placed = sorted(found, key=lambda alarm: -1 if alarm.iteration is None else alarm.iteration)
    return [replace(alarm, phase=evidence.phase) for alarm in placed]


def as_rows(alarms: Sequence[Alarm]) -> list[dict[str, Any]]:
    """Alarms as JSON has them."""
    return [{**asdict(alarm), "rows": list(alarm.rows)} for alarm in alarms]


def _instructions(evidence: Evidence, limits: AlarmSettings) -> Iterator[Alarm]:
    for line in _lines(evidence, "instructions"):
        for name, count in evidence.late_overlap.items():
            if line["rows_out"] >= limits.min_rows and count / line["rows_out"] > limits.overlap:
                yield Alarm(
                    "benchmark_overlap",
                    None,
                    f"{count} of {line['rows_out']} instructions share text with {name}, which came later",
                    "start a run anew with this benchmark configured: its instructions are then checked against it",
                    *(count / line["rows_out"], limits.overlap, line["rows_out"]),
                )


def _pairs(iteration: int | None, facts: PairFacts, limits: AlarmSettings) -> Iterator[Alarm]:
    longer, shorter = facts.chosen_longer, facts.chosen_shorter
    more, word = (longer, "longer") if longer.count >= shorter.count else (shorter, "shorter")
    gate = "set pairs.heuristics, or a larger generator, or another strategy"
    yield from _over(
        *("shortcut_length", iteration, more, limits.longer, limits),
        f"{{share}} of the chosen responses are the {word} ones: a judge that looks at length alone finds them",
        "pairs.strategy neighbour_instruction, pairs.mirror or pairs.max_length_ratio make length say nothing",
    )
    yield from _over(
        *("meta_talk", iteration, facts.meta_talk, limits.meta_talk, limits),
        "{share} of the rejected responses talk about being an assistant: they are told from answers without judging",
        gate,
    )
    yield from _over(
        *("refusals", iteration, facts.refusals, limits.refusals, limits),
        "{share} of the rejected responses decline: they are told from answers without judging",
        gate,
    )
    yield from _over(
        *("near_copies", iteration, facts.near_copies, limits.near_copies, limits),
        "{share} of the pairs hold two responses that are nearly the same: their label means little",
        "lower pairs.max_similarity, or raise the temperature of pairs.sampling",
    )


def _judging(evidence: Evidence, limits: AlarmSettings) -> Iterator[Alarm]:
    for iteration, facts in evidence.judgments.items():
        yield from _over(
            *("unparsed_judgments", iteration, facts.unparsed, limits.unparsed, limits),
            "{share} of the judgments hold no verdict",
            "a prompt that the model follows (prompts.judge), or more judging.generation.max_tokens",
        )
    before: float | None = None
    for line in _lines(evidence, "train_set"):
        rate, tried = line["extra"].get("keep_rate"), line["extra"].get("tried") or 0
        if rate is None or tried < limits.min_rows:
            continue
        if rate < limits.keep_rate:
            yield Alarm(
                "keep_rate_low",
                line["iteration"],
                f"of {rate:.0%} of the units a judgment was kept: the judge does not find the right response, or does "
                "not explain it (judging.min_explanation, judging.must_name)",
                "more judging.samples, a stronger judge, another prompt, or pairs that are easier to tell apart",
                *(rate, limits.keep_rate, tried),
            )
        another = line["iteration"] == 2 and evidence.another_first_judge
        if before is not None and not another and before - rate > limits.keep_rate_fall:
            yield Alarm(
                "keep_rate_falls",
                line["iteration"],
                f"the keep rate fell from {before:.0%} to {rate:.0%}: the judge got worse on its own pairs",
                "a lower train.lr, fewer train.epochs, or checkpoint selection (evaluation.validation)",
                *(before - rate, limits.keep_rate_fall, tried),
            )
        before = rate


def _explanations(iteration: int, facts: ExplanationFacts, limits: AlarmSettings) -> Iterator[Alarm]:
    advice = "judging.min_explanation keeps drawing until a judgment says something; a prompt that asks for reasons"
    yield from _over(
        *("bare_verdicts", iteration, facts.bare, limits.bare_verdicts, limits),
        "{share} of the trained judgments are a bare verdict: the judge learns to explain nothing",
        advice,
    )
    if facts.distinct is not None and facts.said >= limits.min_rows and facts.distinct < limits.distinct:
        yield Alarm(
            "few_phrasings",
            iteration,
            f"only {facts.distinct:.0%} of the explanations differ; the commonest is {facts.commonest[:60]!r}",
            advice,
            *(facts.distinct, limits.distinct, facts.said, tuple(facts.commonest_ids)),
        )


def _evaluations(evidence: Evidence, limits: AlarmSettings) -> Iterator[Alarm]:
    sets, changes = (by_iteration(evidence.metrics, name) for name in ("headline", "change"))
    second = evaluated_twice(evidence.metrics)
    for iteration, by_name in sets.items():
        if iteration == 0 or iteration in second:
            continue  # the seed has learned nothing yet; of two trainings the judge of the last one goes on
        yield from _verdicts(iteration, evidence, limits)
        yield from _shortcut(iteration, by_name, limits)
        yield from _falls(iteration, changes.get(iteration, {}), limits)


def _verdicts(iteration: int, evidence: Evidence, limits: AlarmSettings) -> Iterator[Alarm]:
    """One alarm for all sets: what is wrong with a judge's verdicts is seldom wrong on one alone."""
    votes = {name: facts for (number, name), facts in evidence.votes.items() if number == iteration}
    unparsed = {name: facts.unparsed for name, facts in votes.items()}
    yield from _of_sets(
        "unparsed_verdicts",
        iteration,
        {name: (share, float(share.value or 0)) for name, share in unparsed.items()},
        *(limits.unparsed, limits, "{sets} of the verdicts are none"),
        "more evaluation.generation.max_tokens, or more training: every one counts as wrong",
    )
    first = {name: facts.first for name, facts in votes.items()}
    second = {name: facts.second for name, facts in votes.items()}
    yield from _of_sets(
        "position_bias",
        iteration,
        {name: (share, abs((share.value or 0) - 0.5)) for name, share in first.items() if share.of},
        *(limits.first_position, limits, "{sets} of the verdicts are for the response shown first"),
        "judging.balance, more pairs; figures of one order alone (the official protocol) are not to be trusted",
        {name: first[name] if (first[name].value or 0) > 0.5 else second[name] for name in first},
    )


def _of_sets(
    name: str,
    iteration: int,
    sets: Mapping[str, tuple[Share, float]],
    limit: float,
    limits: AlarmSettings,
    message: str,
    advice: str,
    examples: Mapping[str, Share] | None = None,
) -> Iterator[Alarm]:
    """An alarm for the sets, {name: (share, how far it is off)}, that are off by more than the limit. `examples`: where
    the rows are that show it, if not in the share itself.
    """
    over = {s: found for s, found in sets.items() if found[0].of >= limits.min_rows and found[1] > limit}
    if over:
        told = ", ".join(f"{s} {share.value:.0%}" for s, (share, _) in over.items())
        worst = max(over, key=lambda s: over[s][1])
        share, off = over[worst]
        shown = (examples or {}).get(worst, share)
        yield Alarm(
            name, iteration, message.format(sets=told), advice, off, limit, share.of, tuple(shown.ids), set=worst
        )


def _shortcut(iteration: int, sets: Mapping[str, Mapping[str, Any]], limits: AlarmSettings) -> Iterator[Alarm]:
    heldout = sets.get(HELDOUT, {})
    sensitivity, right = heldout.get("instruction_sensitivity"), main(heldout)
    if _known(sensitivity, limits) and sensitivity["value"] < limits.sensitivity:
        yield Alarm(
            "shortcut_instruction",
            iteration,
            f"of held-out pairs whose instruction is exchanged, the winner changes in {sensitivity['value']:.0%}: the "
            "judge looks at the responses, not at what was asked",
            "pairs.strategy neighbour_instruction or pairs.mirror: nothing but the instruction tells there",
            *(sensitivity["value"], limits.sensitivity, sensitivity["n"]),
        )
    if not _known(right, limits) or right["low"] is None or right["low"] <= limits.synthetic_from:
        return
    yield from _words(iteration, heldout, right, limits)
    others = [headline for name, headline in sets.items() if name != HELDOUT and chance_of(headline) == COIN]
    yield from _elsewhere(iteration, right, others, limits)


def _words(iteration: int, heldout: Line, right: Line, limits: AlarmSettings) -> Iterator[Alarm]:
    """`right`: the accuracy on held-out pairs."""
    words, beyond = value_of(heldout, "overlap_baseline"), beyond_of(heldout, "beyond_overlap")
    if words is None or beyond is None:
        return
    if words >= COIN:
        which, share, above = "more", words, (beyond["low"] or 0) > 0
    else:
        which, share, above = "fewer", 1 - words, right["low"] > 1 - words
    if share > limits.words and not above:
        yield Alarm(
            "shortcut_words",
            iteration,
            f"always the response with {which} of the instruction's words is right in {share:.0%} of held-out pairs, "
            f"the judge in {right['value']:.0%}: they do not show that it does more than count words",
            "pairs.beyond_words makes pairs that words tell less; sets with gold labels show whether it judges",
            *(share, limits.words, right["n"]),
        )


def _elsewhere(iteration: int, right: Line, others: Sequence[Line], limits: AlarmSettings) -> Iterator[Alarm]:
    """`right`: the accuracy on held-out pairs; `others`: the headlines of the other sets of pairs."""
    known = [figure for figure in map(main, others) if _known(figure, limits) and figure["low"] is not None]
    if not known:
        return
    value, low = pooled(known)
    if low <= COIN + (right["value"] - COIN) * limits.synthetic_only:
        yield Alarm(
            "synthetic_only",
            iteration,
            f"{right['value']:.0%} right on held-out synthetic pairs, but on {_sets(len(known))} not surely more "
            f"than by chance ({value:.0%}, at least {low:.0%})",
            "read pairs (Samples) for what tells chosen from rejected besides the instruction, and mirror them",
            *(right["value"], limits.synthetic_from, right["n"]),
        )


def _sets(count: int) -> str:
    return "the other set" if count == 1 else f"the {count} other sets together"


def _falls(iteration: int, changes: Mapping[str, Mapping[str, Any]], limits: AlarmSettings) -> Iterator[Alarm]:
    real, synthetic = changes.get(VALIDATION), changes.get(HELDOUT)
    if real and synthetic and real["significant"] and synthetic["significant"]:
        fall, rise = real["difference"]["value"], synthetic["difference"]["value"]
        if -fall > limits.validation_falls and rise > 0:
            yield Alarm(
                "validation_falls",
                iteration,
                f"validation fell by {-fall:.1%} while held-out synthetic pairs rose by {rise:.1%}",
                "fewer iterations or epochs: the judge fits its pairs",
                *(-fall, limits.validation_falls, real["n"]),
            )


def _over(
    name: str, iteration: int | None, share: Share, limit: float, limits: AlarmSettings, message: str, advice: str
) -> Iterator[Alarm]:
    """An alarm where a share of enough rows is over its limit."""
    if share.value is not None and share.of >= limits.min_rows and share.value > limit:
        said = message.format(share=f"{share.value:.0%}")
        yield Alarm(name, iteration, said, advice, share.value, limit, share.of, tuple(share.ids))


def _known(figure: Any, limits: AlarmSettings) -> TypeGuard[Mapping[str, Any]]:
    return bool(figure) and figure["value"] is not None and figure["n"] >= limits.min_rows


def _lines(evidence: Evidence, stage: str) -> list[Line]:
    found = [line for line in evidence.metrics if line["stage"] == stage]
    return sorted(found, key=lambda line: -1 if line["iteration"] is None else line["iteration"])
