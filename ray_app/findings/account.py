"""What became of a run's rows, tokens and seconds, in words and sums for its report. Pure: metrics.jsonl in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ray_app.findings.naming import stage_words, where
from ray_app.run.folder import parts_of
from ray_app.system.device_time import summed

REASONS = 4  # of a sentence; the table has them all
NEVER_RIGHT = "never judged right"
NO_WRONG = "no wrong judgment to set beside"
BESIDE = "pairs, with judgments beside them"
Line = Mapping[str, Any]


def learned_from(metrics: Sequence[Line]) -> list[str]:
    """A sentence a trained iteration: how many judgments it was trained on, of what, out of how many drawn."""
    stages = [(line, *parts_of(line["stage"])) for line in metrics]
    drawn = {(phase, line["iteration"]): line["rows_out"] for line, phase, stage in stages if stage == "judgments"}
    cut = {(phase, line["iteration"]): line["extra"] for line, phase, stage in stages if stage == "training"}
    told = []
    for line, phase, stage in stages:
        if stage != "train_set":
            continue
        extra, place = line["extra"], (phase, line["iteration"])
        text = f"{_opening(line)}{extra.get('rows', line['rows_out']):,} training rows"
        text += " (each a right and a wrong judgment)" if phase else ""
        text += f" from {extra['pairs']:,} pairs" if extra.get("pairs") is not None else ""
        text += f", chosen out of {drawn[place]:,} judgments drawn" if place in drawn else ""
        if extra.get("explanation_words_median") is not None:
            text += f"; half of them say {extra['explanation_words_median']:g} words or more besides the verdict"
        steps = cut.get(place, {})
        if steps.get("cut_from"):
            text += f"; train.max_steps ended training after {steps['steps']} of {steps['cut_from']} steps"
        told.append(text + ".")
    return told


def thrown_away(metrics: Sequence[Line]) -> list[str]:
    """What was left out, in sentences, with the share of what was asked: from instructions (neighbours: couples) to
    pairs, and from judged units to training rows.
    """
    told = []
    for line in metrics:
        _, stage = parts_of(line["stage"])
        place = _opening(line)
        kept, extra = line["rows_out"], line["extra"]
        asked = extra.get("tried") or line.get("rows_in") or 0
        reasons = ", ".join(
            f"{reason} {count:,}" + (f" ({100 * count / asked:.0f} %)" if asked else "")
            for reason, count in left_out(line)[:REASONS]
        )
        if stage == "pairs" and (lost := sum(line["quarantined"].values())):
            made = f"{place}{lost:,} rows gave no pair, and {kept:,} pairs were made"
            told.append(f"{made}. Most were lost as: {reasons}.")
        elif stage == "train_set" and extra.get("tried"):
            unit = "(pair, order)s" if extra.get("kept_by_letter") else "pairs"
            trained = extra.get("rows", kept)
            text = f"{place}of {extra['tried']:,} judged {unit}, {trained:,} became training rows"
            told.append(text + (f". Left out: {reasons}." if reasons else "."))
    return told


def _opening(line: Line) -> str:
    """How a sentence of a stage begins: `Iteration 1, DPO: `; nothing where the stage is of no iteration."""
    phase, _ = parts_of(line["stage"])
    place = "" if line["iteration"] is None else f"{where(line['iteration'], phase)}: "
    return place[:1].upper() + place[1:]


def left_out(line: Line) -> list[tuple[str, int]]:
    """(reason, rows) of one stage, most first: quarantined rows, and what a training set leaves out by its rules. Those
    are counted by unit: a (pair, order), pointwise a pair.
    """
    extra = line["extra"]
    _, stage = parts_of(line["stage"])
    found = {reason.replace("_", " "): count for reason, count in line["quarantined"].items()}
    if stage == "train_set" and extra.get("tried") is not None:
        found |= {
            NEVER_RIGHT: extra["tried"] - (extra.get("kept") or 0),
            "to balance A and B": extra.get("dropped_by_balance") or 0,
            "unsure": extra.get("dropped_unsure") or 0,
        }
        if extra.get("kept_by_letter"):  # only a preference needs a second judgment; pointwise rows are of both sides
            found[NO_WRONG] = max(0, extra["tried"] - sum(found.values()) - extra.get("rows", line["rows_out"]))
    if stage == "judgments":
        found["without a verdict"] = extra.get("unparsed") or 0
    return sorted(((reason, n) for reason, n in found.items() if n), key=lambda entry: -entry[1])


def spent(metrics: Sequence[Line]) -> list[dict[str, Any]]:
    """{stage, seconds, share, tokens} over all iterations, the longest first: of the clock's time while a command was
    at work on the run. What ran side by side is one line. Of runs without an account (`device_time`) the stages' own
    seconds, which may overlap.
    """
    known = any("device_time" in line["extra"] for line in metrics)
    sums: dict[str, list[float]] = {}
    for line in metrics:
        extra, name, seconds = line["extra"], stage_words(line["stage"]), line["seconds"]
        if known:  # stages that were done together have one account, with the first of them
            name = BESIDE if extra.get("side_by_side") else name
            seconds = extra.get("device_time", {}).get("seconds", 0.0)
        made = sums.setdefault(name, [0.0, 0.0])
        made[0] += seconds
        made[1] += line["completion_tokens"]
    whole = sum(seconds for seconds, _ in sums.values()) or 1.0
    rows = [
        {"stage": stage, "seconds": seconds, "share": seconds / whole, "tokens": int(tokens)}
        for stage, (seconds, tokens) in sums.items()
    ]
    return sorted(rows, key=lambda row: -float(row["seconds"]))


def where_time_went(metrics: Sequence[Line]) -> list[str]:
    """In sentences: the largest part of the time, what starts of engines took of it, how long the devices waited."""
    rows = spent(metrics)
    if not rows:
        return []
    whole, most = sum(float(row["seconds"]) for row in rows), rows[0]
    told = [
        f"The run took {duration(whole)}, as far as its stages are done. The largest part went into {most['stage']}: "
        f"{duration(most['seconds'])} ({100 * most['share']:.0f} %)."
    ]
    if starting := sum(line["extra"].get("weights_seconds") or 0.0 for line in metrics):
        told.append(f"Engines started, or took other weights, for {duration(starting)} of it.")
    account = summed(line["extra"]["device_time"] for line in metrics if "device_time" in line["extra"])
    if account["total"]:
        causes = sorted(account["idle"].items(), key=lambda cause: -cause[1])[:2]
        waited = " and ".join(f"{name} ({duration(seconds)})" for name, seconds in causes)
        share = 1 - account["busy"] / account["total"]
        told.append(
            f"The devices (GPUs, or the machine) did no work for {100 * share:.0f} % of their time"
            + (f", mostly for: {waited}, in device-seconds." if causes else ".")
        )
    return told


def duration(seconds: float) -> str:
    """Seconds as a reader says them: 42 s, 7 min, 3.5 h."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
