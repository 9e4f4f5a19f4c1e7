"""Rows to read: some at random, some at the ends of a scale, those of alarms. Pure, seeded, bounded.

Random ones are those whose hash with the seed is lowest, so the same run always shows the same rows, whatever its
shards. A sample is {"kind", "id", "why", "fields": [[name, text], …], "tags": […]}; `shown` is what
a page takes of it.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any

from ray_app.base.schema import unit_interval
from ray_app.base.verdict import explanation
from ray_app.findings.facts import shown_text, text_of
from ray_app.train.data import row_id

Row = Mapping[str, Any]
Sample = dict[str, Any]
LONGEST = 4_000  # characters of a text that are shown
AROUND = 200  # characters on each side of what was searched for, where it lies behind them
LETTERS = "ABCD"


def lowest(rows: Iterable[Row], count: int, scale: Callable[[Row], float]) -> list[Row]:
    """The `count` rows that are lowest on a scale, lowest first; memory of `count` rows."""
    kept: list[tuple[float, int, Row]] = []
    for number, row in enumerate(rows):
        heapq.heappush(kept, (-scale(row), -number, row))
        if len(kept) > count:
            heapq.heappop(kept)
    return [row for _, _, row in sorted(kept, key=lambda entry: (-entry[0], -entry[1]))]


def at_random(rows: Iterable[Row], count: int, seed: int, key: Callable[[Row], str]) -> list[Row]:
    """`count` rows by their hashes with the seed."""
    return lowest(rows, count, lambda row: unit_interval("report", seed, key(row)))


def sample(kind: str, identity: str, why: str, fields: Mapping[str, Any], tags: Iterable[str] = ()) -> Sample:
    """A row with its whole texts; empty fields are left out."""
    told = [[name, str(text)] for name, text in fields.items() if text not in (None, "")]
    return {"kind": kind, "id": identity, "why": why, "fields": told, "tags": [str(tag) for tag in tags if tag]}


def shown(sample: Sample, find: str = "") -> Sample:
    """A sample as the page shows it: long texts are cut and say so. What was searched for (in lower case) is shown with
    its surroundings where it lies in what is cut off.
    """
    fields: list[list[str]] = []
    for name, text in sample["fields"]:
        fields.append([name, clipped(text)])
        at = text.lower().find(find, LONGEST) if find and find not in text[:LONGEST].lower() else -1
        if at >= 0:
            fields.append(
                [f"{name}, from character {at}", f"… {text[max(0, at - AROUND) : at + len(find) + AROUND]} …"]
            )
    return {**sample, "fields": fields}


def clipped(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} … ({len(text) - LONGEST} more characters)"


def instruction_samples(rows: Iterable[Row], why: str) -> Iterator[Sample]:
    for row in rows:
        tags = (row["category"], row["split"], row["language"])
        fields = {"instruction": shown_text(row["text"]), "complexity": row["complexity"], "source": row["source"]}
        yield sample("instruction", row["instruction_id"], why, fields, tags)


def pair_samples(rows: Iterable[Row], why: str) -> Iterator[Sample]:
    for row in rows:
        fields = {
            "instruction": shown_text(row["instruction"]),
            "modified instruction": shown_text(row["modified_instruction"]),
            "chosen": row["chosen"],
            "rejected": row["rejected"],
            "mirror": row.get("mirror"),
        }
        yield sample("pair", row["pair_id"], why, fields, (row["category"], row["split"], row["strategy"]))


def judgment_samples(rows: Iterable[Row], why: str, iteration: int) -> Iterator[Sample]:
    """Judgments, kept and dropped, by (pair, order); pointwise: scores, by (pair, side)."""
    for row in rows:
        identity = f"{row['pair_id']}/{row.get('order') or row['side']}/{row['sample']}"
        verdict = row["verdict"] if "verdict" in row else row["score"]
        fields = {"judgment": row["text"], "verdict": "unparsed" if verdict is None else verdict}
        fields["finish reason"] = row["finish_reason"]
        tags = [f"iteration {iteration}"]
        if "kept" in row:
            tags += ["kept" if row["kept"] else "dropped", "right" if row["correct"] else "wrong"]
        made = sample("judgment", identity, why, fields | {"seed": row["seed"], "judge": row["judge"]}, tags)
        yield {**made, "pair": [row["pair_id"], row.get("order") or row["side"]]}


def training_samples(rows: Iterable[Row], why: str) -> Iterator[Sample]:
    for row in rows:
        fields = {"prompt": "\n\n".join(f"{turn['role']}: {turn['content']}" for turn in row["prompt"])}
        for name in ("completion", "chosen", "rejected"):
            if row.get(name):
                fields[name] = text_of(row[name])
        said = explanation(text_of(row.get("completion") or row.get("chosen")))
        tags = (f"iteration {row['iteration']}", "" if said else "bare verdict")
        yield sample("training row", row_id(row), why, fields, tags)


def vote_key(row: Row) -> tuple[str, str]:
    """What a vote and the unit that was shown for it have in common; scores and their units have no order."""
    return row["id"], row.get("order") or ""


def vote_samples(
    votes: Iterable[Row], units: Mapping[tuple[str, str], Row], name: str, iteration: int, why: str = ""
) -> Iterator[Sample]:
    """Verdicts or scores on an evaluation set beside what was shown for them."""
    for vote in votes:
        unit = units.get(vote_key(vote), {})
        answer = vote["score"] if "score" in vote else vote["verdict"]
        fields = {
            "instruction": shown_text(unit.get("instruction")),
            **_responses(vote, unit),
            "gold": unit.get("gold"),
            "score" if "score" in vote else "verdict": "unparsed" if answer is None else answer,
            "judgment": vote["text"],
        }
        place = vote.get("order") or vote["side"]
        tags = (name, f"iteration {iteration}", vote.get("order") or f"response {place}")
        yield sample("evaluation", f"{vote['id']}/{place}/{vote['sample']}", why or name, fields, tags)


def _responses(vote: Row, unit: Row) -> dict[str, Any]:
    """What was shown: a pair, several responses by letter, or of a score the one that it is of."""
    if "score" in vote:
        texts = dict(zip(unit.get("sides") or (), unit.get("responses") or (), strict=True))
        return {f"response {vote['side']}": texts.get(vote["side"])}
    if "responses" in unit:
        return {f"response {letter}": text for letter, text in zip(LETTERS, unit["responses"], strict=False)}
    return {"shown first (A)": unit.get("first"), "shown second (B)": unit.get("second")}


def quarantine_samples(rows: Iterable[Row], where: str) -> Iterator[Sample]:
    for row in rows:
        yield sample(
            "quarantine", str(row["id"]), f"lost in {where}", {"detail": row["detail"]}, (row["reason"], where)
        )


def by_id(rows: Iterable[Row], wanted: Collection[str], key: Callable[[Row], str]) -> list[Row]:
    """The rows with these ids, in the table's order."""
    return [row for row in rows if key(row) in wanted]
