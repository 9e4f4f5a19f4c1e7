"""How long a report of a large run takes, and how much memory.

    python benchmarks/report.py [--pairs 100000] [--output benchmarks/results/report.json]

Texts are random words: what is measured is reading, counting and choosing rows, not the run.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ray_app.base.schema import INSTRUCTIONS, JUDGMENTS, PAIRS, TRAIN_SFT
from ray_app.findings import gather, page
from ray_app.findings.run_tables import RunTables
from ray_app.findings.settings import AlarmSettings
from ray_app.loop.reporting import default_settings
from ray_app.run.shards import ShardWriter

WORDS = [f"word{i}" for i in range(5000)]
SHARD = 256


def text(rng: random.Random, words: int) -> str:
    return " ".join(rng.choices(WORDS, k=words))


def write(folder: Path, schema: Any, rows: Iterable[dict[str, Any]]) -> None:
    with ShardWriter(str(folder), schema) as writer:
        for row in rows:
            writer.add([{name: row.get(name) for name in schema.names}])


def run_folder(folder: Path, pairs: int) -> None:
    """A run of one iteration with so many pairs, each judged once in both orders and trained on once."""
    rng = random.Random(0)
    ids = [f"{i:016x}" for i in range(pairs)]
    made = {"generator": "g", "strategy": "modified_instruction", "split": "train"}
    drawn = {"sample": 0, "correct": True, "kept": True, "finish_reason": "stop", "seed": 1, "judge": "j"}
    write(
        folder / "instructions",
        INSTRUCTIONS,
        ({"instruction_id": i, "text": text(rng, 20), "source": "s", "split": "train"} for i in ids),
    )
    write(
        folder / "pairs",
        PAIRS,
        (
            {"pair_id": i, "instruction_id": i, "instruction": text(rng, 20), "modified_instruction": text(rng, 20),
             "chosen": text(rng, 80), "rejected": text(rng, 70), **made}
            for i in ids
        ),
    )  # fmt: skip
    write(
        folder / "iter_01" / "judgments",
        JUDGMENTS,
        (
            {"pair_id": i, "order": order, "verdict": rng.choice(["A", "B", None]), "text": text(rng, 30), **drawn,
             "prompt_tokens": 200, "completion_tokens": 40}
            for i in ids
            for order in ("chosen_first", "rejected_first")
        ),
    )  # fmt: skip
    write(
        folder / "iter_01" / "train_set",
        TRAIN_SFT,
        (
            {"pair_id": i, "order": "chosen_first", "sample": 0, "iteration": 1,
             "prompt": [{"role": "user", "content": text(rng, 150)}],
             "completion": [{"role": "assistant", "content": f"{text(rng, 30)} [[A]]"}]}
            for i in ids
        ),
    )  # fmt: skip
    lines = [
        ("instructions", None, pairs),
        ("pairs", None, pairs),
        ("judgments", 1, 2 * pairs),
        ("train_set", 1, pairs),
    ]
    zero = {"quarantined": {}, "prompt_tokens": 0, "completion_tokens": 0, "seconds": 1.0, "finished": "", "extra": {}}
    metrics = [{"stage": stage, "iteration": i, "rows_in": n, "rows_out": n, **zero} for stage, i, n in lines]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in metrics))
    (folder / "run.json").write_text(json.dumps({"settings": {"seed": 0}}))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--pairs", type=int, default=100_000)
    parser.add_argument("--output")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        run_folder(Path(place), given.pairs)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        tables, started = RunTables(place), time.perf_counter()
        alarms = gather.look(tables, AlarmSettings())
        looked = time.perf_counter()
        written = page.write(tables, alarms, default_settings())
        done = time.perf_counter()
        found = {
            "processor": processor(),
            "pairs": given.pairs,
            "alarms_seconds": round(looked - started, 1),
            "page_seconds": round(done - looked, 1),
            "page_bytes": Path(written).stat().st_size,
            "memory_mib_added": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024,
        }
    print(json.dumps(found, indent=2))
    if given.output:
        Path(given.output).write_text(json.dumps(found, indent=2) + "\n")


def processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


if __name__ == "__main__":
    main()
