"""JudgeBench (arXiv 2410.12784): pairs with objective labels; knowledge, reasoning, math and coding.

Its two sets are two benchmarks, as they are published: `judgebench` (350 pairs of GPT-4o's responses, what most tables
show) and `judgebench_claude` (270 of Claude 3.5 Sonnet's). They share questions, so they are not pooled.
"""

from __future__ import annotations

from collections.abc import Iterator

from ray_app.benchmarks.base import ID, TEXT, Ids, Item, Spec, pairwise_item
from ray_app.benchmarks.files import Numbered
from ray_app.errors import InputError

NAME = "judgebench"
_LABELS = {"A>B": "A", "B>A": "B"}
# The paper's categories by the prefix of the row's source.
_CATEGORIES = {
    "mmlu-pro": "knowledge",
    "livebench-reasoning": "reasoning",
    "livebench-math": "math",
    "livecodebench": "coding",
}


def parse(rows: Iterator[Numbered]) -> Iterator[Item]:
    """One item a pair; `id` is the pair_id. Raises InputError where rows of both sets are in one file."""
    ids, models = Ids(), set[str]()
    for numbered in rows:
        row = numbered.row
        if model := row.get("response_model"):
            models.add(str(model))
        if len(models) > 1:
            raise InputError(
                f"{numbered.where}: responses of {' and '.join(sorted(models))} in one file: JudgeBench's two sets "
                "share questions and are not pooled; give each as a file of its own"
            )
        label = row.get("label")
        yield pairwise_item(
            ids.own(row.get("pair_id"), numbered.where),
            subset_of(row.get("source") or ""),
            row.get("question"),
            (row.get("response_A"), row.get("response_B")),
            _LABELS.get(label or "", label),
        )


def subset_of(source: str) -> str:
    """The category of a source name (`mmlu-pro-law` → knowledge); any other name is itself."""
    return next((category for prefix, category in _CATEGORIES.items() if source.startswith(prefix)), source)


def spec(name: str, split: str) -> Spec:
    """The benchmark of one of the two sets."""
    return Spec(
        name=name,
        required={
            "pair_id": ID,
            "source": str,
            "question": TEXT,
            "response_A": TEXT,
            "response_B": TEXT,
            "label": str,
        },
        parse=parse,
        hub=("ScalerLab/JudgeBench", None, (split,)),
        subset=subset_of,
    )


SPEC, CLAUDE = spec(NAME, "gpt"), spec(f"{NAME}_claude", "claude")
