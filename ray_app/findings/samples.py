"""Rows to read: some at random, some at the ends of a scale, those of alarms. Pure, seeded, bounded.

Random ones are those whose hash with the seed is lowest, so the same run always shows the same rows, whatever its
shards. A sample is {"kind", "id", "why": [reason, …], "fields": [[name, text], …], "tags": […]}, with the "iteration",
"phase" and "set" that apply to it, and "prompt" ([[role, text], …]) where it has one; `shown` is what a page takes of
it.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
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


@dataclass(frozen=True)
class Place:
    """Where a row belongs besides its id: rows of several iterations, trainings and sets have the same ids."""

    iteration: int | None = None
    phase: str = ""
    set: str = ""

    @property
    def fields(self) -> dict[str, Any]:
        """Those that apply to the row."""
        return {name: value for name, value in asdict(self).items() if value not in (None, "")}

    @property
    def tags(self) -> list[str]:
        number = [] if self.iteration is None else [f"iteration {self.iteration}" if self.iteration else "the seed"]
        return [*number, self.phase.upper(), self.set]


NOWHERE = Place()


def sample(
    kind: str, identity: str, why: Iterable[str], fields: Mapping[str, Any], tags: Iterable[str], place: Place = NOWHERE
) -> Sample:
    """A row with its whole texts; empty fields are left out."""
    told = [[name, str(text)] for name, text in fields.items() if text not in (None, "")]
    named = [str(tag) for tag in (*tags, *place.tags) if tag]
    return {"kind": kind, "id": identity, **place.fields, "why": list(why), "fields": told, "tags": named}


def identity_of(sample: Sample) -> tuple[Any, ...]:
    """What tells a row from every other one of the run; marks and links name it by the same five."""
    return tuple(sample.get(name, "") for name in ("kind", "id", "iteration", "phase", "set"))


def merged(found: Iterable[Sample]) -> list[Sample]:
    """Each row once, with every reason that it was chosen for; in the order in which they first came."""
    rows: dict[tuple[Any, ...], Sample] = {}
    for made in found:
        before = rows.get(identity_of(made), made)
        rows[identity_of(made)] = {**before, "why": list(dict.fromkeys([*before["why"], *made["why"]]))}
    return list(rows.values())


def shown(sample: Sample, find: str = "", longest: int = LONGEST) -> Sample:
    """A sample as the page shows it: long texts are cut and say so. What was searched for (in lower case) is shown with
    its surroundings where it lies in what is cut off.
    """
    cut = {**sample, "fields": _cut(sample["fields"], find, longest)}
    return {**cut, "prompt": _cut(sample["prompt"], find, longest)} if "prompt" in sample else cut


def _cut(fields: Iterable[Sequence[str]], find: str, longest: int) -> list[list[str]]:
    found: list[list[str]] = []
    for name, text in fields:
        found.append([name, clipped(text, longest)])
        at = text.lower().find(find, longest) if find and find not in text[:longest].lower() else -1
        if at >= 0:
            around = text[max(0, at - AROUND) : at + len(find) + AROUND]
            found.append([f"{name}, from character {at}", f"… {around} …"])
    return found


def clipped(text: str, longest: int = LONGEST) -> str:
    return text if len(text) <= longest else f"{text[:longest]} … ({len(text) - longest} more characters)"


def outcome(verdict: str | None, correct: bool | None) -> str:
    """What became of an answer, as a tag; empty where nothing says what is right."""
    if verdict is None:
        return "no verdict"
    return "" if correct is None else "right" if correct else "wrong"


def instruction_samples(rows: Iterable[Row], why: Sequence[str]) -> Iterator[Sample]:
    for row in rows:
        tags = (row["category"], row["split"], row["language"])
        fields = {"instruction": shown_text(row["text"]), "complexity": row["complexity"], "source": row["source"]}
        yield sample("instruction", row["instruction_id"], why, fields, tags)


def pair_samples(rows: Iterable[Row], why: Sequence[str], place: Place = NOWHERE) -> Iterator[Sample]:
    for row in rows:
        fields = {
            "instruction": shown_text(row["instruction"]),
            "modified instruction": shown_text(row["modified_instruction"]),
            "chosen": row["chosen"],
            "rejected": row["rejected"],
            "mirror": row.get("mirror"),
        }
        yield sample("pair", row["pair_id"], why, fields, (row["category"], row["split"], row["strategy"]), place)


def judgment_samples(rows: Iterable[Row], why: Sequence[str], place: Place) -> Iterator[Sample]:
    """Judgments, kept and dropped, by (pair, order); pointwise: scores, by (pair, side)."""
    for row in rows:
        identity = f"{row['pair_id']}/{row.get('order') or row['side']}/{row['sample']}"
        verdict = row["verdict"] if "verdict" in row else row["score"]
        fields = {"judgment": row["text"], "verdict": "unparsed" if verdict is None else verdict}
        fields["finish reason"] = row["finish_reason"]
        tags: list[str] = []
        if "kept" in row:
            tags = ["kept" if row["kept"] else "dropped", outcome(verdict, row["correct"])]
        fields |= {"seed": row["seed"], "judge": row["judge"]}
        made = sample("judgment", identity, why, fields, tags, place)
        yield {**made, "pair": [row["pair_id"], row.get("order") or row["side"]]}


def training_samples(rows: Iterable[Row], why: Sequence[str], phase: str = "") -> Iterator[Sample]:
    """Rows of a training set: what is learned, and the messages that it answers."""
    for row in rows:
        fields = {name: text_of(row[name]) for name in ("completion", "chosen", "rejected") if row.get(name)}
        said = explanation(text_of(row.get("completion") or row.get("chosen")))
        place = Place(row["iteration"], phase)
        made = sample("training row", row_id(row), why, fields, ("" if said else "bare verdict",), place)
        yield {**made, "prompt": [[turn["role"], str(turn["content"])] for turn in row["prompt"]]}


def vote_key(row: Row) -> tuple[str, str]:
    """What a vote and the unit that was shown for it have in common; scores and their units have no order."""
    return row["id"], row.get("order") or ""


def vote_samples(
    votes: Iterable[Row], units: Mapping[tuple[str, str], Row], why: Sequence[str], place: Place
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
        side = vote.get("order") or vote["side"]
        tags = (outcome(answer, vote.get("correct")), vote.get("order") or f"response {side}")
        yield sample("evaluation", f"{vote['id']}/{side}/{vote['sample']}", why, fields, tags, place)


def _responses(vote: Row, unit: Row) -> dict[str, Any]:
    """What was shown: a pair, several responses by letter, or of a score the one that it is of."""
    if "score" in vote:
        texts = dict(zip(unit.get("sides") or (), unit.get("responses") or (), strict=True))
        return {f"response {vote['side']}": texts.get(vote["side"])}
    if "responses" in unit:
        return {f"response {letter}": text for letter, text in zip(LETTERS, unit["responses"], strict=False)}
    return {"shown first (A)": unit.get("first"), "shown second (B)": unit.get("second")}


def by_id(rows: Iterable[Row], wanted: Collection[str], key: Callable[[Row], str]) -> list[Row]:
    """The rows with these ids, in the table's order."""
    return [row for row in rows if key(row) in wanted]
