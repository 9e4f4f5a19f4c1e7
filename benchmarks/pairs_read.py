"""What reading pairs by hand says of a gate: the share of pairs that teach, before it and after it.

    python benchmarks/pairs_read.py runs/NAME/pairs/shard-00000.parquet benchmarks/results/pairs-read-smollm2-135m.jsonl

The second file has a line a pair: `pair_id` and `instruction_id` as they stand in the table, `read` (which reading),
`label`, `rejected_is_worse`, `reason`. The gate's decision is written beside them (`gate`; null: it lets the pair
through), as `pairs.heuristics` with `pairs.max_similarity: 0.6` decides, and the shares are printed with 95 %
intervals. Without the table (`-`) the shares are printed of the decisions that the file has.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from ray_app.generation.pair_gate import Gate, pair_fault
from ray_app.metrics.proportion import interval

GATE = Gate(max_similarity=0.6, heuristics=True)
TEACHES = "teaches"
DECISIONS = ("gate_before", "gate")  # as it was before the first reading, and as it is

Row = dict[str, Any]


def decided(read: Iterable[Row], pairs: Mapping[str, Mapping[str, Any]]) -> list[Row]:
    """Lines of the file with what the gate says of each pair. Raises KeyError where the table lacks one."""
    return [{**line, "gate": fault_of(pairs[line["pair_id"]])} for line in read]


def fault_of(pair: Mapping[str, Any]) -> str | None:
    texts = (pair["instruction"], pair["modified_instruction"], pair["chosen"], pair["rejected"])
    return pair_fault(*texts, [], GATE)


def share(count: int, of: int) -> str:
    """A share in percent with its 95 % interval; no two pairs here share an instruction. Of at least two pairs."""
    low, high = interval(np.repeat([1.0, 0.0], [count, of - count]), np.ones(of))
    return f"{count} of {of} ({100 * count / of:.1f} [{100 * low:.1f}, {100 * high:.1f}])"


def shares(read: list[Row], decision: str) -> dict[str, str]:
    """What a gate's decisions do to these pairs."""
    through = [line for line in read if line[decision] is None]
    taught = [line for line in read if line["label"] == TEACHES]
    return {
        "teach, before": share(len(taught), len(read)),
        "rejected is worse, before": share(sum(line["rejected_is_worse"] for line in read), len(read)),
        "let through": share(len(through), len(read)),
        "teach, of those": share(sum(line["label"] == TEACHES for line in through), len(through)),
        "rejected is worse, of those": share(sum(line["rejected_is_worse"] for line in through), len(through)),
        "wrongly stopped, of those that teach": share(sum(line[decision] is not None for line in taught), len(taught)),
    }


def main(table: str, file: str) -> None:
    path = Path(file)
    read = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    if table != "-":
        read = decided(read, {pair["pair_id"]: pair for pair in pq.read_table(table).to_pylist()})
        path.write_text("".join(json.dumps(line) + "\n" for line in read), encoding="utf-8")
    for reading in sorted({line["read"] for line in read}):
        part = [line for line in read if line["read"] == reading]
        print(f"{reading}: labels {dict(Counter(line['label'] for line in part).most_common())}")
        for decision in DECISIONS:
            print(f"  {decision}: {json.dumps(shares(part, decision))}")


if __name__ == "__main__":
    main(*sys.argv[1:])
