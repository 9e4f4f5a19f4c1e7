"""The run folder (docs/run_folder.md): where everything is, and the commit of a stage."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from ray_app.errors import InputError, first_line
from ray_app.run import storage
from ray_app.run.fingerprint import Fingerprint

COMMIT = "stage.json"
RUN = "run.json"
FORMAT = 1  # of the run folder; 0 is that of runs whose run.json names none
DPO = "dpo"  # the phase of the second training of an iteration
STARTED = "started.json"  # until the commit: what the closed shards of an interrupted stage were made with


class StageRecord(BaseModel):
    """stage.json: written last, so that its presence commits the stage."""

    model_config = ConfigDict(extra="forbid")

    stage: str
    iteration: int | None
    fingerprint: Fingerprint
    rows_in: int
    rows_out: int
    quarantined: dict[str, int]
    prompt_tokens: int
    completion_tokens: int
    seconds: float
    started: str | None = None
    finished: str
    extra: dict[str, Any] = {}


class RunFolder:
    """Paths of one run, local or any fsspec URI. A `phase` is a second training of every iteration: its stages lie in a
    folder of their own below the iteration's, and carry its name in front of theirs.
    """

    def __init__(self, uri: str, phase: str = "") -> None:
        self.uri, self.phase = uri.rstrip("/"), phase

    join = staticmethod(storage.join)

    def of_phase(self, phase: str) -> RunFolder:
        return RunFolder(self.uri, phase)

    def stage_name(self, stage: str) -> str:
        """The name of a stage of this phase, in commits, metrics and seeds."""
        return f"{self.phase}_{stage}" if self.phase else stage

    def name_of(self, iteration: int) -> str:
        """Where an iteration's stages lie, below the run folder; the name of its judge, too."""
        return f"iter_{iteration:02d}" + (f"/{self.phase}" if self.phase else "")

    def iteration(self, number: int) -> str:
        return storage.join(self.uri, self.name_of(number))

    def stage_dir(self, stage: str, iteration: int | None = None) -> str:
        """instructions/ and pairs/ are made once; the rest lies in iter_NN/."""
        base = self.uri if iteration is None else self.iteration(iteration)
        return storage.join(base, stage)

    def checkpoint(self, iteration: int) -> str:
        return self.stage_dir("checkpoint", iteration)

    def train_state(self, iteration: int) -> str:
        return self.stage_dir("train_state", iteration)

    def clear(self, directory: str) -> None:
        """Remove what an interrupted attempt left of a stage that starts from nothing."""
        for file in storage.list_files(directory, "*.parquet"):
            storage.remove(file)


def parts_of(stage: str) -> tuple[str, str]:
    """(phase, stage within it) of a stage's name; the phase is empty but for a second training."""
    phase, _, rest = stage.partition("_")
    return (DPO, rest) if phase == DPO else ("", stage)


def selected_of_several(extra: Mapping[str, Any]) -> bool:
    """Whether a training's checkpoint is the best of several on the validation set, so that its figure there flatters.
    `extra`: what its record says.
    """
    return len(extra.get("candidates") or []) > 1


def read_record(directory: str) -> StageRecord | None:
    """The commit of a stage, or None. Raises InputError naming the file when it is damaged."""
    uri = storage.join(directory, COMMIT)
    if not storage.exists(uri):
        return None
    try:
        return StageRecord.model_validate(storage.read_json(uri))
    except (ValidationError, ValueError) as fault:
        raise InputError(f"{uri} is damaged: {first_line(fault)}") from fault


def committed_folder(uri: str, stage: str) -> str | None:
    """The folder of a stage's committed table: `uri` is the run's folder, or the stage's own. None where there is none.
    Raises InputError where its commit is damaged.
    """
    for directory in (storage.join(uri, stage), uri):
        record = read_record(directory)
        if record is not None and record.stage == stage:
            return directory
    return None


def read_run(uri: str) -> dict[str, Any]:
    """run.json of a run; empty where it has none yet. Raises InputError naming the file when it is damaged, or of a run
    that a newer version has made.
    """
    file = storage.join(uri, RUN)
    if not storage.exists(file):
        return {}
    try:
        described = dict(storage.read_json(file))
    except (ValueError, TypeError) as fault:
        raise InputError(f"{file} is damaged: {first_line(fault)}") from fault
    made = described.get("format", 0)
    if not isinstance(made, int) or made > FORMAT:
        raise InputError(
            f"{file} has format {made}; this version continues runs up to format {FORMAT}: use a newer one"
        )
    return described


def write_run(uri: str, described: dict[str, Any]) -> None:
    """Write run.json."""
    storage.write_json_atomic(storage.join(uri, RUN), described)


def begin(directory: str, wanted: Fingerprint) -> None:
    """Note what a stage is made with, before its first row: only with the same may a later attempt go on."""
    storage.write_json_atomic(storage.join(directory, STARTED), wanted.model_dump(mode="json"))


def read_started(directory: str) -> Fingerprint | None:
    """What an interrupted attempt was made with, or None. Raises InputError naming the file when it is damaged."""
    uri = storage.join(directory, STARTED)
    if not storage.exists(uri):
        return None
    try:
        return Fingerprint.model_validate(storage.read_json(uri))
    except (ValidationError, ValueError) as fault:
        raise InputError(f"{uri} is damaged: {first_line(fault)}") from fault


def commit(directory: str, record: StageRecord) -> None:
    """Commit a stage: nothing of it is redone afterwards. NaN and infinities (a loss that diverged) become null."""
    storage.write_json_atomic(storage.join(directory, COMMIT), json.loads(record.model_dump_json()))
    storage.remove(storage.join(directory, STARTED))


def now() -> str:
    """UTC, seconds, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")
