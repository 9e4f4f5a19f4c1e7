"""What became of a run's rows, tokens and seconds, in words and sums for its report. Pure: metrics.jsonl in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Line = Mapping[str, Any]


def learned_from(metrics: Sequence[Line]) -> list[str]:
    """A sentence a trained iteration: how many judgments it was trained on, of what, out of how many drawn."""
    drawn = {line["iteration"]: line["rows_out"] for line in metrics if line["stage"] == "judgments"}
    told = []
    for line in metrics:
        if line["stage"] != "train_set":
            continue
        extra, iteration = line["extra"], line["iteration"]
        text = f"Iteration {iteration}: {extra.get('rows', line['rows_out']):,} training rows"
        text += f" from {extra['pairs']:,} pairs" if extra.get("pairs") is not None else ""
        text += f", of {drawn[iteration]:,} judgments drawn" if iteration in drawn else ""
        if extra.get("explanation_words_median") is not None:
            text += f"; half of them say {extra['explanation_words_median']:g} words or more besides the verdict"
        told.append(text + ".")
    return told


def left_out(line: Line) -> list[tuple[str, int]]:
    """(reason, rows) of one stage, most first: quarantined rows, and what a training set leaves out by its rules. Those
    are counted by unit: a (pair, order), pointwise a pair.
    """
    extra = line["extra"]
    found = dict(line["quarantined"])
    if line["stage"] == "train_set" and extra.get("tried") is not None:
        found |= {
            "never judged right": extra["tried"] - (extra.get("kept") or 0),
            "to balance A and B": extra.get("dropped_by_balance") or 0,
            "unsure": extra.get("dropped_unsure") or 0,
        }
    if line["stage"] == "judgments":
        found["without a verdict"] = extra.get("unparsed") or 0
    return sorted(((reason, n) for reason, n in found.items() if n), key=lambda entry: -entry[1])


def spent(metrics: Sequence[Line]) -> list[dict[str, Any]]:
    """{stage, seconds, share, tokens} over all iterations, the longest first. Stages side by side overlap, so shares
    are of the sum of all seconds, not of the time that passed.
    """
    sums: dict[str, list[float]] = {}
    for line in metrics:
        made = sums.setdefault(line["stage"].replace("_", " "), [0.0, 0.0])
        made[0] += line["seconds"]
        made[1] += line["completion_tokens"]
    whole = sum(seconds for seconds, _ in sums.values()) or 1.0
    rows = [
        {"stage": stage, "seconds": seconds, "share": seconds / whole, "tokens": int(tokens)}
        for stage, (seconds, tokens) in sums.items()
    ]
    return sorted(rows, key=lambda row: -float(row["seconds"]))


def duration(seconds: float) -> str:
    """Seconds as a reader says them: 42 s, 7 min, 3.5 h."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
