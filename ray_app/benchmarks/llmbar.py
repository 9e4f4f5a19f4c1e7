"""LLMBar (arXiv 2310.07641): input, output_1, output_2, label 1/2; one natural, four adversarial subsets.

A subset is a `subset` column, else the folder of a `dataset.json` (so the repository's Dataset/LLMBar folder
loads as it is), else the file's or hub split's name. The rows have no ids: one is the subset and the hash of
the content.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

from ray_app.base.schema import content_id
from ray_app.benchmarks.base import TEXT, Ids, Item, Spec, pairwise_item
from ray_app.benchmarks.files import Numbered

NAME = "llmbar"
SUBSETS = ("Natural", "Neighbor", "GPTInst", "GPTOut", "Manual")
_LABELS = {"1": "A", "2": "B"}


def parse(rows: Iterator[Numbered]) -> Iterator[Item]:
    """One item a row; output_1 is response_a."""
    ids = Ids()
    for numbered in rows:
        row = numbered.row
        subset = subset_of(row.get("subset") or _place(numbered.file))
        responses = (row.get("output_1"), row.get("output_2"))
        identity = ids.derived(f"{subset}-{content_id([row.get('input'), *responses])}")
        yield pairwise_item(identity, subset, row.get("input"), responses, _label(row.get("label")))


def subset_of(name: str) -> str:
    """Any spelling of a subset (`adversarial/neighbor`, `llmbar-adver-neighbor`) as the official one."""
    last = name.replace("/", "-").rsplit("-", 1)[-1].lower()
    return next((subset for subset in SUBSETS if subset.lower() == last), name)


def _place(file: str) -> str:
    path = PurePosixPath(file.replace(":", "/"))
    return path.parent.name if path.stem == "dataset" else path.stem


def _label(value: Any) -> Any:
    return _LABELS.get(str(value), value)


SPEC = Spec(
    name=NAME,
    required={"input": TEXT, "output_1": TEXT, "output_2": TEXT, "label": (int, str)},
    parse=parse,
    hub=("princeton-nlp/LLMBar", "LLMBar", SUBSETS),
    subset=subset_of,
)
