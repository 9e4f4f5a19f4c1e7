"""Lost (quarantined) rows as a reader can use them: what was made of each by name, and why it was lost. Pure but for
`with_instructions`, which looks up what they were made of.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ray_app.findings.facts import shown_text
from ray_app.findings.run_tables import RunTables
from ray_app.findings.samples import Place, Row, Sample, sample

KIND = "quarantine"
ENDS = ("", "'}", '"}', "]}", "']}", '"]}', ")]}", "')]}", '")]}', "}")  # of a record that was cut in the middle
CUT_OFF = "cut_off_"


@dataclass(frozen=True)
class LostFrom:
    """A stage that may have lost rows, and where its table of them lies."""

    stage: str
    place: Place
    directory: str


def places(tables: RunTables) -> list[LostFrom]:
    """Every stage of this phase that may have lost rows."""
    folder, phase = tables.folder, tables.folder.phase
    once = [] if phase else ["instructions", "pairs"]
    found = [LostFrom(stage, Place(), folder.stage_dir(stage)) for stage in once]
    for i in (i for i in tables.iterations() if i > 0):
        stages = ("pairs", "judgments", "train_set")
        found += [LostFrom(stage, Place(i, phase), folder.stage_dir(stage, i)) for stage in stages]
    for line in (line for line in tables.metrics() if line["stage"] == "evaluation"):
        number, name = line["iteration"], line["extra"]["set"]
        found.append(LostFrom("evaluation", Place(number, phase, name), tables.evaluation(number, name)))
    return found


def lost_samples(
    rows: Iterable[Row], where: LostFrom, why: Sequence[str], settings: Mapping[str, Any]
) -> Iterator[Sample]:
    """Lost rows with the texts that there were, by name."""
    for row in rows:
        fields = {"why it was lost": told(str(row["reason"]), settings), **details(str(row["detail"] or ""))}
        stage = where.stage.replace("_", " ")
        yield sample(KIND, str(row["id"]), why, fields, (str(row["reason"]), f"lost in {stage}"), where.place)


def told(reason: str, settings: Mapping[str, Any]) -> str:
    """A reason in words; of an answer that was cut off the limit that did it."""
    if not reason.startswith(CUT_OFF):
        return reason.replace("_", " ")
    what, pairs = reason.removeprefix(CUT_OFF), settings.get("pairs", {})
    name = "modify_sampling" if what.startswith("modified") and pairs.get("modify_sampling") else "sampling"
    limit = (pairs.get(name) or {}).get("max_tokens")
    text = "the modified instruction" if what.startswith("modified") else f"the {what.replace('_', ' ')} response"
    return f"{text} was cut off by its limit, pairs.{name}.max_tokens" + (f" = {limit}" if limit else "")


def details(text: str) -> dict[str, str]:
    """The parts of a quarantine row's `detail`, by name: a record as Python writes it (whose end may be cut off),
    `name=value` words of a classification, or a text that is shown as it is.
    """
    found = _record(text)
    if found is None:
        classified = re.fullmatch(
            r"category=(?P<category>.*?) complexity=(?P<complexity>.*?) text=(?P<answer>.*)", text, re.S
        )
        found = classified.groupdict() if classified else {"detail": text}
    return {str(name).replace("_", " "): _text(value) for name, value in found.items()}


def _record(text: str) -> dict[Any, Any] | None:
    if not text.startswith("{"):
        return None
    for end in ENDS:
        try:
            value = ast.literal_eval(text.rstrip("\\") + (f" …{end}" if end[:1] in ("'", '"') else end))
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            continue
        return value if isinstance(value, dict) else None
    return None


def _text(value: Any) -> str:
    if isinstance(value, list | tuple):
        return "\n\n".join(": ".join(map(str, one)) if isinstance(one, tuple) else str(one) for one in value)
    if isinstance(value, str) and value[:1] in "'\"":
        try:
            return str(ast.literal_eval(value))
        except (ValueError, SyntaxError):
            return value
    return "" if value is None else str(value)


def with_instructions(tables: RunTables, lost: Sequence[Sample]) -> list[Sample]:
    """The same, with the instruction that each was made of where a table of the run still has it."""
    units = {made["id"].split("/")[0] for made in lost if "/" in made["id"]}  # of a pair, by its order or side
    rows = {made["id"] for made in lost} - units
    texts: dict[str, str] = {}
    folder = tables.folder
    sources = [(folder.stage_dir("instructions"), "instruction_id", "text", rows)]
    sources += [(folder.stage_dir("pairs", i), "pair_id", "instruction", units) for i in (None, *tables.iterations())]
    for directory, column, text, wanted in sources:
        missing = wanted - set(texts)
        for row in tables.rows_of(directory, column, missing) if missing else ():
            texts[row[column]] = shown_text(row[text])
    return [_with(made, texts.get(made["id"].split("/")[0])) for made in lost]


def _with(made: Sample, instruction: str | None) -> Sample:
    if not instruction:
        return made
    first, *rest = made["fields"]
    return {**made, "fields": [first, ["instruction", instruction], *rest]}
