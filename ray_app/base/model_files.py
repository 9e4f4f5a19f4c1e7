"""Model folders, on a disk or a store: do they exist, and which model is it. Pure reads; no model library."""

from __future__ import annotations

import hashlib
from pathlib import Path

from ray_app.base.local_copy import WEIGHTS, local_model, model_files_of
from ray_app.base.schema import content_id
from ray_app.base.stores import is_remote
from ray_app.errors import InputError

JUDGE_CARD = "judge.json"  # in a checkpoint: what kind of judge it is (`judging.judge`), no part of the model


def is_path(model: str) -> bool:
    """Whether a model name means a local folder rather than a hub id (`owner/name`)."""
    return model.startswith((".", "/", "~")) or model.count("/") != 1 or Path(model).exists()


def require_model(model: str, setting: str) -> None:
    """Raises InputError naming the setting when a model folder is not there or holds no model."""
    if is_remote(model):
        try:
            model_files_of(model)
        except InputError as fault:
            raise InputError(f"{setting}: {fault}") from None
        return
    if not is_path(model):
        return
    folder = Path(model).expanduser()
    if not folder.exists():
        where = "" if folder.is_absolute() else f" in {Path.cwd()}"
        raise InputError(f"{setting}: model path {model} does not exist{where}")
    if not (folder / "config.json").is_file():
        raise InputError(f"{setting}: {model} holds no config.json, so it is no Hugging Face model")


def require_on_hub(model: str, revision: str | None, setting: str) -> None:
    """Raises InputError naming the setting when a hub id, or its revision, is not there or may not be read.

    Only `config.json` is asked for: a name that is no folder and no hub model would else be found out by an engine.
    """
    if is_path(model) or ":" in model:
        return
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError

    try:
        hf_hub_download(model, "config.json", revision=revision)
    except (LocalEntryNotFoundError, HfHubHTTPError, ValueError) as fault:
        if isinstance(fault, EntryNotFoundError) and not isinstance(fault, LocalEntryNotFoundError):
            return  # a model in another format: the engine will know
        cause = next(iter(str(fault).strip().splitlines()), type(fault).__name__)
        raise InputError(f"{setting}: {model} is no folder here, and not to be had from the hub: {cause}") from fault


def absolute(model: str) -> str:
    """A local folder by its absolute path: Ray's workers have working folders of their own. A hub id as it is."""
    folder = Path(model).expanduser()
    return str(folder.resolve()) if folder.is_dir() else model


def model_identity(model: str) -> str:
    """A hub id as it is; a local folder as a hash of its config, tokenizer and weight file names and sizes.

    Weights are not read: a 70B model would take minutes, and a changed size or config is what is seen in practice.
    """
    folder = Path(local_model(model, weights=False)).expanduser()
    if not folder.is_dir():
        return model
    facts = _weights_on_store(model) if is_remote(model) else []
    for file in sorted(folder.iterdir()):
        if file.suffix in (".json", ".jinja", ".model") and file.name != JUDGE_CARD:
            facts.append([file.name, hashlib.sha256(file.read_bytes()).hexdigest()])
        elif file.suffix in WEIGHTS:
            facts.append([file.name, str(file.stat().st_size)])
    return content_id(facts)


def _weights_on_store(model: str) -> list[list[str]]:
    """Names and sizes of the weight files, which the copy without weights does not hold."""
    files = model_files_of(model).items()
    return [[name, str(about["size"])] for name, about in files if name.endswith(WEIGHTS)]
