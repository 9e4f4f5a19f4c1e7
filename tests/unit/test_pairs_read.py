"""What reading pairs says of a gate (`benchmarks/pairs_read.py`), and the committed readings."""

from __future__ import annotations

import json
from pathlib import Path

from pairs_read import shares

COMMITTED = Path(__file__).parents[2] / "benchmarks" / "results" / "pairs-read-smollm2-135m.jsonl"


def test_shares_of_what_was_read() -> None:
    labels = [
        ("teaches", True, None),
        ("teaches", True, "refusal"),
        ("meta_talk", True, None),
        ("off_topic", False, "x"),
    ]
    read = [{"label": label, "rejected_is_worse": worse, "gate": gate} for label, worse, gate in labels]
    told = {name: value.split(" (")[0] for name, value in shares(read, "gate").items()}
    assert told == {
        "teach, before": "2 of 4",
        "rejected is worse, before": "3 of 4",
        "let through": "2 of 4",
        "teach, of those": "1 of 2",
        "rejected is worse, of those": "2 of 2",
        "wrongly stopped, of those that teach": "1 of 2",
    }


def test_the_committed_readings_are_ids_labels_and_reasons() -> None:
    read = [json.loads(line) for line in COMMITTED.read_text(encoding="utf-8").splitlines()]
    assert len({line["pair_id"] for line in read}) == len(read) == 256
    fields = {"pair_id", "instruction_id", "read", "label", "rejected_is_worse", "reason", "gate_before", "gate"}
    assert all(line.keys() == fields and len(line["reason"]) < 100 for line in read)
