"""Rows to read: some at random, some at the ends of a scale, those of alarms. Pure, seeded, bounded.

Random ones are those whose hash with the seed is lowest, so the same run always shows the same rows, whatever its
shards. A sample is what the page shows: {"kind", "id", "why", "fields": [[name, text], …], "tags": […]}.
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
    """A row as the page shows it; empty fields are left out, long ones are cut and say so."""
    shown = [[name, clipped(str(text))] for name, text in fields.items() if text not in (None, "")]
    return {"kind": kind, "id": identity, "why": why, "fields": shown, "tags": [str(tag) for tag in tags if tag]}


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
        yield sample("judgment", identity, why, fields | {"seed": row["seed"], "judge": row["judge"]}, tags)


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
    """What a vote and the unit that was shown for it have in common."""
    return row["id"], row["order"]


def vote_samples(
    votes: Iterable[Row], units: Mapping[tuple[str, str], Row], name: str, iteration: int, why: str = ""
) -> Iterator[Sample]:
    """Verdicts on an evaluation set beside what was shown for them."""
    for vote in votes:
        shown = units.get(vote_key(vote), {})
        fields = {
            "instruction": shown_text(shown.get("instruction")),
            "shown first (A)": shown.get("first"),
            "shown second (B)": shown.get("second"),
            "gold": shown.get("gold"),
            "verdict": vote["verdict"] or "unparsed",
            "judgment": vote["text"],
        }
        tags = (name, f"iteration {iteration}", vote["order"])
        yield sample("evaluation", f"{vote['id']}/{vote['order']}/{vote['sample']}", why or name, fields, tags)


def quarantine_samples(rows: Iterable[Row], where: str) -> Iterator[Sample]:
    for row in rows:
        yield sample(
            "quarantine", str(row["id"]), f"lost in {where}", {"detail": row["detail"]}, (row["reason"], where)
        )


def by_id(rows: Iterable[Row], wanted: Collection[str], key: Callable[[Row], str]) -> list[Row]:
    """The rows with these ids, in the table's order."""
    return [row for row in rows if key(row) in wanted]
