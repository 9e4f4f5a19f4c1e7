"""Rows of a Hugging Face dataset, streamed by `datasets`; HF_TOKEN comes from the environment."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from ray_app.benchmarks.files import Numbered, Types, check_row, clean_row
from ray_app.errors import InputError, first_line

_ID = re.compile(r"^(?:hf:)?(?P<id>[\w.-]+/[\w.-]+)(?::(?P<split>[\w.-]+))?$")


def parse_id(path: str) -> tuple[str, str | None] | None:
    """(dataset id, split) of `ORG/NAME`, `ORG/NAME:SPLIT` or the same after `hf:`; None for anything else."""
    match = _ID.match(path)
    return (match["id"], match["split"]) if match else None


def read_hub(
    identity: str, config: str | None, splits: tuple[str, ...], required: Mapping[str, Types]
) -> Iterator[Numbered]:
    """Rows of the splits, one after the other, checked like a file's. Raises InputError (one line)."""
    for split in splits:
        name = f"{identity}:{split}"
        for number, raw in enumerate(_stream(identity, config, split), 1):
            row = clean_row(raw)
            check_row(f"{name} row {number}", row, required, None)
            yield Numbered(name, "row", number, row)


def _stream(identity: str, config: str | None, split: str) -> Iterator[dict[str, Any]]:
    import datasets

    try:
        yield from datasets.load_dataset(identity, config, split=split, streaming=True)
    except Exception as fault:  # the library raises its own, fsspec's, requests' and hub errors
        line = first_line(fault)
        raise InputError(f"dataset {identity} split {split}: {line}") from fault
