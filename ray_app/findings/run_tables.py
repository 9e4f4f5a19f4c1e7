"""The tables of a run folder, streamed shard by shard: a run of a million pairs is read in the memory of one shard."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ray_app.errors import InputError
from ray_app.run import storage
from ray_app.run.folder import DPO, RunFolder, parts_of, read_run

Row = dict[str, Any]
ALARMS = "alarms.json"


class RunTables:
    """Reads one run folder, local or any fsspec URI. What is not there yet is empty."""

    def __init__(self, uri: str, phase: str = "") -> None:
        self.folder = RunFolder(uri, phase)
        if not storage.exists(storage.join(self.folder.uri, "run.json")):
            raise InputError(f"{uri} is no run folder: it has no run.json")
        self.described = read_run(self.folder.uri)

    @property
    def name(self) -> str:
        return self.folder.uri.rsplit("/", 1)[-1]

    def phases(self) -> list[RunTables]:
        """The run as its stages made it, and as those of second trainings did, where there are any."""
        uri = self.folder.uri
        return [self, RunTables(uri, DPO)] if self.described.get("settings", {}).get("then_dpo") else [self]

    @property
    def settings(self) -> dict[str, Any]:
        """The resolved config, as the stages of this phase see it."""
        found: dict[str, Any] = self.described.get("settings", {})
        return {**found, **found["then_dpo"]} if self.folder.phase else found

    def metrics(self) -> list[Row]:
        """The lines of metrics.jsonl; those of a phase with their stages' plain names."""
        uri = storage.join(self.folder.uri, "metrics.jsonl")
        if not storage.exists(uri):
            return []
        fs, path = storage.filesystem(uri)
        text = fs.cat_file(path).decode("utf-8", "replace")
        lines = [json.loads(line) for line in text.splitlines() if line.strip()]
        if not self.folder.phase:
            return lines
        named = [(line, *parts_of(line["stage"])) for line in lines]
        return [{**line, "stage": stage} for line, phase, stage in named if phase == self.folder.phase]

    def iterations(self) -> list[int]:
        """Iterations that any stage has committed something of."""
        return sorted({line["iteration"] for line in self.metrics() if line["iteration"] is not None})

    def last_evaluated(self) -> int | None:
        """The last iteration whose judge was evaluated; None where none but the seed was."""
        found = [line["iteration"] for line in self.metrics() if line["stage"] == "evaluation" and line["iteration"]]
        return max(found, default=None)

    def lasting(self) -> tuple[RunTables, int]:
        """(the phase whose judge goes on, its last evaluated iteration); 0 where none but the seed was evaluated."""
        phases = self.phases()
        last, number = max((phase.last_evaluated() or 0, number) for number, phase in enumerate(phases))
        return (phases[number] if last else self), last

    def pairs(self, iteration: int | None = None) -> Iterator[Row]:
        """Pairs made once, or those of an iteration that made its own."""
        own = self.folder.stage_dir("pairs", iteration)
        yield from self.rows(own if iteration is not None and self._has(own) else self.folder.stage_dir("pairs"))

    def judgments(self, iteration: int) -> Iterator[Row]:
        yield from self.rows(self.folder.stage_dir("judgments", iteration))

    def train_set(self, iteration: int) -> Iterator[Row]:
        yield from self.rows(self.folder.stage_dir("train_set", iteration))

    def votes(self, iteration: int, name: str) -> Iterator[Row]:
        yield from self.rows(self.evaluation(iteration, name))

    def units(self, iteration: int, name: str) -> Iterator[Row]:
        """What was shown for the votes of a set: (id, order) with its texts and gold letter."""
        yield from self.rows(storage.join(self.evaluation(iteration, name), "units"))

    def evaluation(self, iteration: int, name: str) -> str:
        return storage.join(self.folder.stage_dir("evaluation", iteration), name)

    def summary(self, iteration: int, name: str) -> Row:
        """summary.json of a set; empty where it has none."""
        return self.json(storage.join(self.evaluation(iteration, name), "summary.json"))

    def cost(self, stage: str, iteration: int, prompt: str, name: str) -> Row:
        """What the verdicts of an evaluation cost, by its stage's full name; empty where that was not measured."""
        phase, plain = parts_of(stage)
        place = self.folder.of_phase(phase).stage_dir(plain, iteration)
        for part in (prompt, name):
            place = storage.join(place, part) if part else place
        return dict(self.json(storage.join(place, "summary.json")).get("cost") or {})

    def training(self, iteration: int) -> Row:
        """What training wrote beside its checkpoint (losses, candidates); empty where there is none."""
        return self.json(storage.join(self.folder.checkpoint(iteration), "training.json"))

    def quarantine(self, directory: str) -> Iterator[Row]:
        yield from self.rows(directory, "quarantine")

    def alarms(self) -> list[Row]:
        """The alarms that the run has raised, as `alarms.write` left them."""
        found = self.json(storage.join(self.folder.uri, ALARMS))
        return list(found.get("alarms", []))

    def rows(self, directory: str, prefix: str = "shard", columns: Sequence[str] | None = None) -> Iterator[Row]:
        """Rows of a table, one shard after the other."""
        for file in storage.list_files(directory, f"{prefix}-*.parquet"):
            yield from storage.read_parquet(file, columns=columns).to_pylist()

    def rows_of(self, directory: str, column: str, wanted: Collection[str]) -> Iterator[Row]:
        """Rows of a table whose `column` is one of `wanted`: no other row becomes Python objects."""
        values = pa.array(sorted(wanted), pa.string())
        for file in storage.list_files(directory, "shard-*.parquet"):
            table = storage.read_parquet(file)
            yield from table.filter(pc.is_in(table.column(column), value_set=values)).to_pylist()

    @staticmethod
    def json(uri: str) -> Row:
        return dict(storage.read_json(uri)) if storage.exists(uri) else {}

    @staticmethod
    def _has(directory: str) -> bool:
        return bool(storage.list_files(directory, "shard-*.parquet"))
