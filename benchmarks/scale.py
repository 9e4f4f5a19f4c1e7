"""What the passes over a large table of judgments cost: seconds, memory, and how often the join reads it.

    python benchmarks/scale.py [--pairs 100000] [--repeats 3] [--output benchmarks/results/scale.json]

The tables are written as a run leaves them, by no engine: shards of 256 rows, and judgments in the order in which
blocks of pairs that share the engines end (`--blocks`, as the client sets it). Texts are random words. What is measured
is the driver's reading and counting on a warm local disk; encoding is left out.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
from report import SHARD, processor, text

from ray_app.base.schema import CHOSEN_FIRST, JUDGMENTS, PAIRS, REJECTED_FIRST
from ray_app.judging.rejection_sampling import Rule, choose
from ray_app.loop.stages import joining
from ray_app.run.shards import closed_names, column_values, shard_files
from ray_app.run.storage import read_parquet, write_parquet_atomic
from ray_app.run.tally import tally
from ray_app.run.units import Units

KEY = ("pair_id", "order")
SOME = 8  # of the tasks of the join one in so many is timed
RULE = Rule(0, 1, balance=True, recipe="sft")


def write(folder: Path, schema: pa.Schema, rows: Iterable[dict[str, Any]]) -> None:
    left = iter(rows)
    for number, some in enumerate(iter(lambda: list(islice(left, SHARD)), [])):
        table = pa.Table.from_pylist(some, schema=schema)
        write_parquet_atomic(table, str(folder / f"shard-{number:05d}.parquet"))


def as_answered(pairs: int, blocks: int, rng: random.Random) -> Iterator[int]:
    """Pairs in the order in which their judgments come: `blocks` shards of pairs at a time take turns."""
    opened = [list(range(start, min(start + SHARD, pairs))) for start in range(0, pairs, SHARD)]
    waiting, running = iter(opened), list[list[int]]()
    while True:
        while len(running) < blocks and (block := next(waiting, None)):
            running.append(block)
        if not running:
            return
        rng.shuffle(running)
        for block in running:
            yield block.pop(0)
        running = [block for block in running if block]


def tables(folder: Path, pairs: int, blocks: int) -> None:
    """A table of pairs, and one of their judgments: one right one of each order."""
    rng = random.Random(0)
    texts = [text(rng, 120) for _ in range(512)]
    empty = dict.fromkeys(PAIRS.names)
    named = [f"{number:016x}" for number in range(pairs)]
    said = {"instruction": texts[0], "chosen": texts[1], "rejected": texts[2], "split": "train", "category": "coding"}
    write(folder / "pairs", PAIRS, ({**empty, "pair_id": name, **said} for name in named))
    drawn = {**dict.fromkeys(JUDGMENTS.names), "sample": 0, "correct": True, "kept": True}
    rows = (
        {**drawn, "pair_id": named[number], "order": order, "verdict": letter, "text": rng.choice(texts),
         "token_ids": [7] * 160, "prompt_tokens": 300, "completion_tokens": 160}
        for number in as_answered(pairs, blocks, rng)
        for order, letter in ((CHOSEN_FIRST, "A"), (REJECTED_FIRST, "B"))
    )  # fmt: skip
    write(folder / "judgments", JUDGMENTS, rows)


def seconds_of(act: Callable[[], Any], repeats: int) -> float:
    """The median of several times."""
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        act()
        times.append(time.perf_counter() - started)
    return round(statistics.median(times), 2)


def peak_mib() -> int:
    """The most memory that this process has taken so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def join(tasks: Sequence[joining.JoinTask]) -> None:
    """Read what the tasks read."""
    for task in tasks:
        joining.drawn_of(task, "order")
        for file, _ in task.shards:
            read_parquet(file)


def amplification(tasks: Sequence[joining.JoinTask], files: Sequence[str]) -> float:
    """How many times the join reads the table of judgments, by files."""
    return round(sum(len(task.judgment_files) for task in tasks) / len(files), 2)


def measured(pairs_folder: str, folder: str, repeats: int) -> dict[str, Any]:
    """Every pass, and the join with a shard of pairs a task (`single`) and with several."""
    pairs_files, files = shard_files(pairs_folder), shard_files(folder)
    tokens = ("prompt_tokens", "completion_tokens")
    found: dict[str, Any] = {
        "closed_units_seconds": seconds_of(lambda: Units.of(closed_names(folder, KEY)), repeats),
        "tally_seconds": seconds_of(lambda: tally(folder, KEY, tokens), repeats),
        "verdicts_seconds": seconds_of(lambda: list(column_values(folder, "verdict")), repeats),
        "choose_seconds": seconds_of(lambda: choose(files, RULE), repeats),
    }
    made = choose(files, RULE)
    found["plan_seconds"] = seconds_of(lambda: joining.plan(pairs_files, made.selected, made.files), repeats)
    found["peak_mib_before_the_join"] = peak_mib()
    most = joining.MOST_SHARDS
    for name, size in (("single", 1), ("several", most)):
        joining.MOST_SHARDS = size
        tasks = joining.plan(pairs_files, made.selected, made.files)
        found[name] = {
            "shards_of_pairs_a_task": max(len(task.shards) for task in tasks),
            "reads_of_the_table": amplification(tasks, files),
            f"seconds_of_one_task_in_{SOME}": seconds_of(lambda tasks=tasks: join(tasks[::SOME]), repeats),
            "peak_mib": peak_mib(),
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--pairs", type=int, default=100_000)
    parser.add_argument("--blocks", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--output")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        # In a process of its own, so that what it took is not counted.
        writing = multiprocessing.get_context("spawn").Process(
            target=tables, args=(Path(place), given.pairs, given.blocks)
        )
        writing.start()
        writing.join()
        folders = f"{place}/pairs", f"{place}/judgments"
        found = {"processor": processor(), **{k: v for k, v in vars(given).items() if k != "output"}}
        found["judgment_shards"] = len(shard_files(folders[1]))
        found |= measured(*folders, given.repeats)
    told = json.dumps(found, indent=2)
    print(told)
    if given.output:
        Path(given.output).write_text(told + "\n")


if __name__ == "__main__":
    main()
