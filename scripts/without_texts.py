"""A small copy of a run folder without the texts of its data: what its report counts and shows can then be published.

    python scripts/without_texts.py RUN FOLDER

RUN holds a config.yaml (or run.json), metrics.jsonl and any of the tables. Kept are ids, figures, verdicts, settings
and the project's own texts: of a training row the prompt around what it asks about, of a judgment what it says in the
prompt's own words. A left-out text says its length, and a response is padded to it, since alarms compare lengths; where
it opens with talk about being an assistant, or declines, these words stay, since alarms count them. Names of
categories, which come from the data too, become numbers. tests/fixtures/h100_modified was made by it.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Callable, Iterable
from importlib.resources import files
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from ray_app.base.ngrams import words
from ray_app.base.verdict import explanation
from ray_app.findings.page import TEXTLESS
from ray_app.generation.pair_texts import is_meta_talk, is_refusal
from ray_app.loop.config import IterateSettings

Row = dict[str, Any]
GROUPS = "pass_rate_by_category"
_SECTION = re.compile(r"<(instruction|response_[a-d])>\n(.*?)\n</\1>", re.DOTALL)
# Words of a bare verdict that the prompt itself does not have.
PLAIN = {"answer", "correct", "is", "indeed", "best", "better", "the", "it", "because", "i"}


class Texts:
    """Stand-ins for the texts of one run: the same text has the same one everywhere."""

    def __init__(self, prompt: str) -> None:
        self._own = PLAIN | set(words(prompt))
        self._wordings: dict[str, int] = {}
        self._categories: dict[str, str] = {}

    def left_out(self, what: str, text: str | None) -> str | None:
        return None if text is None else f"[{what} of {len(text)} characters left out]"

    def response(self, what: str, text: str) -> str:
        """As long as `text`, so that the longer one stays the longer one; those of a pair have no words in common."""
        opening = _opening(text)
        told = f"{opening} {self.left_out(what, text)}".strip()
        forms = (told, opening, f"[{what.split()[0]} left out]", what[0])
        shown = next((form for form in forms if form and len(form) <= len(text)), "")
        return shown.ljust(len(text))

    def judgment(self, text: str) -> str:
        """As it is, if it has the prompt's words alone; else its length, a number for its wording, and its verdict."""
        told = words(explanation(text))
        if set(told) <= self._own:
            return text
        number = self._wordings.setdefault(" ".join(told), len(self._wordings) + 1)
        verdict = "".join(f" {mark}" for mark in re.findall(r"\[\[[A-D]\]\]", text)[-1:])
        return f"[judgment of {len(told)} words left out, wording {number}]{verdict}"

    def category(self, name: str | None) -> str | None:
        if name is None or name == "unknown":
            return name
        return self._categories.setdefault(name, f"category {len(self._categories) + 1}")

    def prompt(self, content: str) -> str:
        """A rendered prompt with its sections left out."""
        return _SECTION.sub(lambda found: f"<{found[1]}>\n{self.left_out('text', found[2])}\n</{found[1]}>", content)


def _opening(text: str) -> str:
    """The words by which a response is known for one that is no answer; empty for any other."""
    for known in (is_meta_talk, is_refusal):
        if known(text):
            return next(text[:end] for end in range(1, len(text) + 1) if known(text[:end]))
    return ""


def pair(row: Row, texts: Texts) -> Row:
    return {
        **row,
        "instruction": texts.left_out("instruction", row["instruction"]),
        "modified_instruction": texts.left_out("modified instruction", row["modified_instruction"]),
        "chosen": texts.response("chosen response", row["chosen"]),
        "rejected": texts.response("rejected response", row["rejected"]),
        "category": texts.category(row["category"]),
    }


def vote(row: Row, texts: Texts) -> Row:
    return {**row, "text": texts.judgment(row["text"])}


def unit(row: Row, texts: Texts) -> Row:
    shown = {side: texts.left_out("response", row[side]) for side in ("first", "second")}
    return {**row, **shown, "instruction": texts.left_out("instruction", row["instruction"])}


def training_row(row: Row, texts: Texts) -> Row:
    prompt = [{**turn, "content": texts.prompt(turn["content"])} for turn in row["prompt"]]
    completion = [{**turn, "content": texts.judgment(turn["content"])} for turn in row["completion"]]
    return {**row, "prompt": prompt, "completion": completion}


def lost(row: Row, texts: Texts) -> Row:
    return {**row, "detail": texts.left_out("detail", row["detail"])}


TABLES: list[tuple[str, Callable[[Row, Texts], Row]]] = [
    ("pairs/shard-*.parquet", pair),
    ("pairs/quarantine-*.parquet", lost),
    ("iter_*/judgments/shard-*.parquet", vote),
    ("iter_*/train_set/shard-*.parquet", training_row),
    ("iter_*/evaluation/*/shard-*.parquet", vote),
    ("iter_*/evaluation/*/units/shard-*.parquet", unit),
]


def line(row: Row, texts: Texts) -> Row:
    """A line of metrics.jsonl: of its groups, those of categories have names of the data's."""
    groups = row["extra"].get(GROUPS, {})
    named = {GROUPS: {texts.category(name): figure for name, figure in groups.items()}} if groups else {}
    return {**row, "extra": {**row["extra"], **named}}


def settings_of(run: Path) -> Row:
    """run.json, or what it would say of the settings in config.yaml."""
    if (run / "run.json").is_file():
        return dict(json.loads((run / "run.json").read_text()))
    given = IterateSettings.model_validate(yaml.safe_load((run / "config.yaml").read_text()))
    return {"settings": given.model_dump(mode="json")}


def copy(run: Path, folder: Path, prompt: str) -> None:
    """Write FOLDER anew."""
    texts = Texts(prompt)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps({**settings_of(run), TEXTLESS: True}, indent=1) + "\n")
    rows: Iterable[Row] = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line(row, texts)) + "\n" for row in rows))
    for pattern, masked in TABLES:
        for file in sorted(run.glob(pattern)):
            table = pq.read_table(file)
            to = folder / file.relative_to(run)
            to.parent.mkdir(parents=True, exist_ok=True)
            made = [masked(row, texts) for row in table.to_pylist()]
            pq.write_table(pa.Table.from_pylist(made, schema=table.schema), to, compression="zstd")


def main() -> None:
    if len(sys.argv) != 3:
        sys.exit("usage: python scripts/without_texts.py RUN FOLDER")
    run, folder = map(Path, sys.argv[1:])
    name = settings_of(run)["settings"]["prompts"]["judge"]
    copy(run, folder, (files("ray_app.prompt_files") / f"{name}.yaml").read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
