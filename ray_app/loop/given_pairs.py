"""Pairs made elsewhere: a user's file, or another run's table. What is read, and why a row is not taken.

A file has the column `instruction` and either `chosen` and `rejected`, or `response_a`, `response_b` and `label` (A or
B, the better one: what people or another judge said). Without labels it has `id`, and a verdict file says which is the
better one (`pairs.verdicts`). Optional: `id`, `generator`, `category`, `complexity`, `modified_instruction` (what the
rejected response answers).

They are held to what a run's own pairs are held to: its decontamination, its held-out split, its gate.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ray_app.base.ngrams import Contamination
from ray_app.base.prompts import transcript
from ray_app.base.schema import GIVEN_STRATEGY, PAIRS, Text, content_id, split_of, unpack_text
from ray_app.base.texts import as_text, conversation_fault
from ray_app.benchmarks.files import Numbered, Types, columns_of, read_numbered
from ray_app.errors import InputError
from ray_app.generation.instruction_choice import NearDuplicates
from ray_app.generation.pair_gate import Gate, contamination_fault, last_turn, pair_fault
from ray_app.generation.programs.calls import Made
from ray_app.generation.programs.neighbour import STRATEGY as NEIGHBOURS
from ray_app.loop.data_settings import InstructionSettings
from ray_app.loop.instruction_rows import name_in
from ray_app.metrics.verdict_file import read_verdicts
from ray_app.run.folder import committed_folder

STAGE = "pairs"
GIVEN = "given_pairs"  # the stage of faults of given pairs: no unit of a strategy is done by them
CONFLICT = "split_conflict"  # what it repeats lies on both sides of the held-out split
ANY: Types = object
CHOSEN: Mapping[str, Types] = {"instruction": ANY, "chosen": ANY, "rejected": ANY}
UNLABELLED: Mapping[str, Types] = {"instruction": ANY, "response_a": ANY, "response_b": ANY, "id": ANY}
LABELLED: Mapping[str, Types] = {"instruction": ANY, "response_a": ANY, "response_b": ANY, "label": ANY}

Row = dict[str, Any]
Judged = tuple[Row | None, dict[str, str] | None]  # a pair, or its line of the quarantine


class Splits:
    """Which split an instruction belongs to: that of the run's own one with this text, or with nearly this text where
    near-duplicates are kept on one side; else by its hash, as a new instruction of the run would. One whose
    near-duplicates lie on both sides has none.
    """

    def __init__(self, part: InstructionSettings, own: Iterable[Mapping[str, Any]]) -> None:
        self.fraction = part.heldout_fraction
        self.similar = NearDuplicates(part.near_similarity) if part.near_duplicates != "keep" else None
        self.known: dict[str, str | None] = {}
        for row in own:
            self.known[row["instruction_id"]] = row["split"]
            if self.similar:
                self.similar.add(transcript(unpack_text(row["text"])), row["instruction_id"])

    def of(self, identity: str, text: Text | None) -> str | None:
        """The split of an instruction by its id, or None; `text` finds its near-duplicates."""
        if identity not in self.known:
            near = self.similar.add(transcript(text), identity) if self.similar and text is not None else set()
            sides = {side for name in near if (side := self.known[name])} or {split_of(identity, self.fraction)}
            self.known[identity] = sides.pop() if len(sides) == 1 else None
        return self.known[identity]


class GivenPairs:
    """Judges rows of files and of other runs; nothing that was taken is taken again."""

    def __init__(
        self,
        splits: Splits,
        contamination: Contamination,
        gate: Gate,
        generated: Contamination | None = None,
        verdicts: Iterable[str] = (),
    ) -> None:
        """`verdicts`: verdict files, by which rows without a label are labelled."""
        self.splits, self.contamination, self.gate, self.generated = splits, contamination, gate, generated
        self.told = labels_of(verdicts)
        self.ids: set[str] = set()
        self.texts: set[int] = set()

    def of_file(self, path: str) -> Iterator[Judged]:
        """Pairs of a file. Raises InputError naming file, line or column where it is no such file."""
        own_ids: set[str] = set()
        for numbered in read_numbered(path, required_of(path, bool(self.told))):
            own = numbered.row.get("id")
            double = own is not None and str(own) in own_ids
            own_ids.add(str(own))
            yield self._of_row(path, numbered, "duplicate_id" if double else None)

    def _of_row(self, path: str, numbered: Numbered, fault: str | None) -> Judged:
        row = numbered.row
        chosen, rejected, label_fault = sides_of(row, self.told)
        fault = fault or label_fault or self._text_fault(row.get("instruction"), chosen, rejected)
        if fault is not None:
            return None, _lost(f"{numbered.where} id {str(row.get('id'))[:80]}", fault, row)
        text, generator = as_text(row["instruction"]), name_in(row, "generator") or path
        identity, other = content_id(text), name_in(row, "modified_instruction") or ""
        complexity = row.get("complexity")
        source = {
            "instruction_id": identity,
            "split": self.splits.of(identity, text),
            "category": name_in(row, "category"),
            "complexity": complexity if type(complexity) is int and 1 <= complexity <= 10 else None,
        }
        made = Made(GIVEN_STRATEGY, generator, group=identity).row(source, text, other, str(chosen), str(rejected))
        fault = CONFLICT if made["split"] is None else self._pair_fault(made)
        return (None, _lost(f"{numbered.where} id {str(row.get('id'))[:80]}", fault, row)) if fault else (made, None)

    def of_run(self, rows: Sequence[Mapping[str, Any]]) -> Iterator[Judged]:
        """Pairs of one shard of another run's table, under the ids that they have there. A pair and its mirror are
        taken both or not at all, and pairs of one group lie on one side of the split.
        """
        table = [{name: row.get(name) for name in PAIRS.names} for row in rows]
        groups: dict[str, list[Row]] = defaultdict(list)
        for row in table:
            row["group"] = row["group"] or row["instruction_id"]  # tables of runs before there were groups
            groups[str(row["group"])].append(row)
        for group in groups.values():
            sides = {self.splits.of(row["instruction_id"], _asked(row)) for row in group}
            torn = len(sides) > 1 or None in sides
            faults = {row["pair_id"]: CONFLICT if torn else self._pair_fault(row) for row in group}
            for row in group:
                fault = faults[row["pair_id"]] or faults.get(row["mirror"] or "")
                lost = _lost(row["pair_id"], fault, row) if fault else None
                yield (None, lost) if lost else ({**row, "split": next(iter(sides))}, None)

    def _text_fault(self, instruction: Any, chosen: str | None, rejected: str | None) -> str | None:
        if fault := conversation_fault(instruction):
            return "empty_instruction" if fault == "empty" else fault
        return "not_a_text" if chosen is None or rejected is None else None

    def _pair_fault(self, row: Row) -> str | None:
        """Why a pair of the pairs table is not taken."""
        text, other = unpack_text(row["instruction"]), row["modified_instruction"]
        if shared := self.contamination.fault(transcript(text)):
            return shared
        # A mirror shows a pair the other way round: what its rejected response answers is the real instruction then.
        mirror = content_id(text) != row["instruction_id"]
        written = not mirror and row["strategy"] != NEIGHBOURS
        chosen, rejected = row["chosen"].strip(), row["rejected"].strip()
        fault = pair_fault(text, last_turn(other) if other else None, chosen, rejected, [], self.gate, written)
        fault = fault or contamination_fault(self.generated, other, chosen, rejected)
        if fault is not None:
            return fault
        content = int(content_id([text, row["chosen"], row["rejected"]]), 16)
        if content in self.texts or row["pair_id"] in self.ids:
            return "duplicate"
        self.texts.add(content)
        self.ids.add(row["pair_id"])
        return None


def required_of(path: str, told: bool = False) -> Mapping[str, Types]:
    """The columns that a file of pairs must have; `told`: there are verdict files for what has no label. Raises
    InputError where it has none of the forms.
    """
    columns = columns_of(path)
    forms = (CHOSEN, LABELLED, UNLABELLED) if told else (CHOSEN, LABELLED)
    form = next((form for form in forms if form.keys() <= columns), None)
    if form is None:
        unlabelled = not told and UNLABELLED.keys() - {"id"} <= columns
        raise InputError(
            f"{path} holds no pairs: it needs the columns {' or '.join(', '.join(form) for form in forms)}; "
            f"it has {', '.join(sorted(columns))}"
            + (". For pairs without labels, pairs.verdicts names verdict files" if unlabelled else "")
        )
    return form


def labels_of(verdicts: Iterable[str]) -> dict[str, str | None]:
    """{id: A, B or None} of verdict files. Raises InputError where one is none, or an id is in two of them."""
    told: dict[str, str | None] = {}
    for path in verdicts:
        found = {identity: verdict.verdict for identity, verdict in read_verdicts(path).items()}
        if both := found.keys() & told.keys():
            raise InputError(f"pairs.verdicts: {path} and another file tell of the same id {min(both)[:80]!r}")
        told |= found
    return told


def sides_of(row: Mapping[str, Any], told: Mapping[str, str | None]) -> tuple[str | None, str | None, str | None]:
    """(chosen, rejected, fault of the label) of a row of any form; a side that is no text is None. `told`: labels by id
    of rows that have none.
    """
    if "chosen" in row:
        return response(row["chosen"]), response(row["rejected"]), None
    a, b, label = response(row["response_a"]), response(row["response_b"]), row.get("label")
    label = told.get(str(row.get("id"))) if label is None else label
    if label not in ("A", "B"):
        return a, b, "no_label" if label is None else "bad_label"
    return (a, b, None) if label == "A" else (b, a, None)


def response(value: Any) -> str | None:
    """A response: a text, or the message of an assistant alone, as preference sets have it. Null is an empty one."""
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], Mapping):
        value = value[0].get("content") if value[0].get("role") == "assistant" else value
    if value is None:
        return ""
    return value.strip() if isinstance(value, str) else None


def table_of_run(uri: str) -> str:
    """The folder of another run's committed pairs: `uri` is the run's folder, or that of the pairs themselves (of one
    iteration, where they are made in each). Raises InputError where no pairs are committed there.
    """
    directory = committed_folder(uri, STAGE)
    if directory is None:
        raise InputError(
            f"pairs.from_run: {uri} holds no committed pairs; give a run's folder, or iter_NN/pairs of one that makes "
            "pairs in each iteration"
        )
    return directory


def _asked(row: Row) -> Text | None:
    """The text of a pair's own instruction; of a mirror, which shows the other one, None."""
    text = unpack_text(row["instruction"])
    return text if content_id(text) == row["instruction_id"] else None


def _lost(identity: str, reason: str, row: Mapping[str, Any]) -> dict[str, str]:
    names = ("instruction", "chosen", "rejected", "response_a", "response_b", "label")
    detail = {name: row[name] for name in names if name in row}
    return {"id": identity, "stage": GIVEN, "reason": reason, "detail": str(detail)[:2000]}
