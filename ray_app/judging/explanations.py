"""The judge's own words beside its verdicts (`judge --explanations`), read back from the votes' shards.

Texts are the bulk of a run, so they are never all in memory: an index says which shard holds a row, and a few shards
stay cached. Rows are asked for in the input's order, which is nearly the order of the shards.
"""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ray_app.base.prompts import transcript
from ray_app.base.schema import PairwiseRow
from ray_app.judging.said import Said
from ray_app.judging.sharing import Source
from ray_app.run.shards import shard_files
from ray_app.run.storage import read_parquet

CACHED_SHARDS = 64


class Explanations:
    """Texts of the votes in a folder, by id. `part` is the column that tells a row's votes apart (order, or side),
    `sources` whose votes a row shares (`sharing.sources_of`).
    """

    def __init__(self, directory: str, part: str = "order", sources: Mapping[str, Source] | None = None) -> None:
        self.sources = sources or {}
        self.files: dict[str, list[str]] = defaultdict(list)
        for file in shard_files(directory):
            for identity in set(read_parquet(file, columns=["id"]).column("id").to_pylist()):
                self.files[identity].append(file)
        self._shard = functools.lru_cache(maxsize=CACHED_SHARDS)(functools.partial(_texts, part=part))

    def of(self, identity: str) -> dict[str, list[str]]:
        """{order (pointwise: side): texts by sample}; empty for an id that was never judged."""
        source = self.sources.get(identity, Source(identity))
        parts: dict[str, list[str]] = {}
        for file in self.files.get(source.id, ()):
            parts |= self._shard(file).get(source.id, {})
        return {source.order(part): texts for part, texts in sorted(parts.items(), key=lambda p: source.order(p[0]))}

    def added(self, records: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """Verdict records with their `explanations`, of the orders that the record holds."""
        for record in records:
            found, asked = self.of(record["id"]), record.get("orders")
            yield {**record, "explanations": {k: v for k, v in found.items() if asked is None or k in asked}}


def numbers_of(directory: str, rows: Sequence[PairwiseRow]) -> dict[str, Any]:
    """{"explanations": what the votes in a folder say besides their verdicts (`said.Said`)}; empty without pairs.

    It is measured on what the judge was asked here: of its training set it was given the answers.
    """
    if not rows:
        return {}
    said, responses = Said(), {row.id: (transcript(row.response_a), transcript(row.response_b)) for row in rows}
    for file in shard_files(directory):
        votes = read_parquet(file, columns=["id", "text"])
        for identity, text in zip(*(votes.column(name).to_pylist() for name in ("id", "text")), strict=True):
            said.see(text, responses.get(identity))
    return {"explanations": said.numbers()}


def _texts(file: str, part: str) -> dict[str, dict[str, list[str]]]:
    """{id: {order or side: texts by sample}} of one shard; a unit never spans two."""
    found: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    rows = read_parquet(file, columns=["id", part, "sample", "text"]).to_pylist()
    for row in sorted(rows, key=lambda row: row["sample"]):
        found[row["id"]][row[part]].append(row["text"])
    return {identity: dict(orders) for identity, orders in found.items()}
