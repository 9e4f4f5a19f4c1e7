"""Writes the cards of a run from its committed stages: README.md in every train_set/ and checkpoint/."""

from __future__ import annotations

from collections.abc import Iterable

from ray_app.loop.cards import dataset_card, model_card
from ray_app.loop.config import IterateSettings
from ray_app.run import storage
from ray_app.run.folder import COMMIT, DPO, RunFolder, StageRecord, read_record

CARD = "README.md"


def write_cards(settings: IterateSettings, folder: RunFolder, iterations: Iterable[int]) -> None:
    """Bring the cards of these iterations up to date. A card that says the same already is not written again."""
    phases = [(settings, folder)]
    if settings.then_dpo:
        phases.append((settings.dpo_phase, folder.of_phase(DPO)))
    for iteration in iterations:
        for phase_settings, phase_folder in phases:
            _write_both(phase_settings, phase_folder, iteration)


def _write_both(settings: IterateSettings, folder: RunFolder, iteration: int) -> None:
    """The cards of one training: its set and its checkpoint."""
    train_set = read_record(folder.stage_dir("train_set", iteration))
    if train_set is not None:
        _write(folder.stage_dir("train_set", iteration), dataset_card(settings, iteration, train_set, folder.phase))
    training = read_record(folder.stage_dir("training", iteration))
    # A checkpoint that its user moved away must not come back as a folder with nothing but a card.
    if training is not None and storage.exists(storage.join(folder.checkpoint(iteration), "config.json")):
        card = model_card(settings, iteration, training, train_set, evaluations(folder, iteration), folder.phase)
        _write(folder.checkpoint(iteration), card)


def evaluations(folder: RunFolder, iteration: int) -> list[StageRecord]:
    """The committed sets of M(iteration), in the order of their commits."""
    folders = storage.list_folders_with(folder.stage_dir("evaluation", iteration), "*", COMMIT)
    records = [record for directory in folders if (record := read_record(directory))]
    return sorted(records, key=lambda record: record.finished)


def _write(directory: str, text: str) -> None:
    uri = storage.join(directory, CARD)
    data = text.encode("utf-8", "replace")
    filesystem, path = storage.filesystem(uri)
    if not filesystem.exists(path) or filesystem.cat_file(path) != data:
        storage.write_bytes_atomic(uri, data)
