"""The JSON lines of scripts/gpu_70b.sh as a table.

python benchmarks/at_size_table.py out/70b.jsonl
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any


def line_of(row: dict[str, Any]) -> list[str]:
    """One record in words; a hand-over has a line a part."""
    if "median" in row:
        median = row["median"]
        told = f"bare {median['bare']:,.1f} tok/s, ray_app {median['app']:,.1f}, ratio {row['ratio']:.3f}"
        return [f"{row['label']}: {row['requests']} requests, {told}, started in {start_of(row)}"]
    if "handover" in row:
        return [f"{row['label']}: {in_words(part)}" for part in row["handover"]]
    if "tokens_per_second_per_gpu" in row:
        figures = {
            "tok/s/GPU": row["tokens_per_second_per_gpu"],
            **{name: row[name] for name in ("mfu", "memory_gib", "export_gb") if name in row},
        }
        return [f"{row['name']}: {in_words(figures)}; {in_words(row['spent_s'])}"]
    return [f"{row['name']}: {in_words({name: value for name, value in row.items() if name != 'name'})}"]


def start_of(row: dict[str, Any]) -> str:
    """Seconds of the engine's start, with its parts."""
    machine = row["app"][-1]["machine"]
    parts = {name: round(seconds, 1) for name, seconds in machine["start_parts"].items()}
    return f"{machine['start_s']} s ({in_words(parts)})"


def in_words(told: dict[str, Any]) -> str:
    """`name value, name value`."""
    return ", ".join(f"{name} {value}" for name, value in told.items())


def main() -> None:
    for text in Path(sys.argv[1]).read_text().splitlines():
        print("\n".join(line_of(json.loads(text))))


if __name__ == "__main__":
    main()
