"""What the passes over a large table of judgments cost: seconds, memory, and how often the join reads it.

    python benchmarks/scale.py [--pairs 1000000] [--in_flight 2048] [--output benchmarks/results/scale.json]

The tables are written as a run leaves them, by no engine: shards of 256 rows, and judgments in the order in which units
(pair, order) end. `--in_flight` of them are at work at once, taken in the order of the pairs, and a unit draws until it
is right (at most 15 samples, of random lengths; the last is taken for right). Texts are random words. What is measured
is the driver's reading and counting on a warm local disk, and how the join is planned; of its tasks some are read.
Encoding is left out.
"""

from __future__ import annotations

import argparse
import heapq
import json
import multiprocessing
import random
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from report import SHARD, processor, text

from ray_app.base.schema import CHOSEN_FIRST, JUDGMENTS, PAIRS, REJECTED_FIRST, TRAIN
from ray_app.judging.rejection_sampling import Rule, choose
from ray_app.loop.stages import joining
from ray_app.loop.stages.judgments import training_rows
from ray_app.loop.stages.train_set import pass_rates_by
from ray_app.run.shards import closed_names, null_count, shard_files
from ray_app.run.storage import parquet_bytes, read_parquet
from ray_app.run.tally import tally
from ray_app.run.units import SeenUnits, Units

KEY, TOKENS = ("pair_id", "order"), ("prompt_tokens", "completion_tokens")
ORDERS = (CHOSEN_FIRST, REJECTED_FIRST)
MOST_DRAWS = 15
PLANNED, SEEN = 200_000, 1_000_000  # pairs of a join that is planned alone, and of a writer
DRAWN = 120  # tokens of a judgment
RULE = Rule(0, 1, balance=True, recipe="sft")


def as_answered(units: int, in_flight: int, rng: random.Random) -> Iterator[tuple[int, int]]:
    """Units with the number of their samples, in the order in which they end."""
    running: list[tuple[float, int, int]] = []  # when it ends
    now = 0.0
    for unit in range(units):
        if len(running) == in_flight:
            now, *ended = heapq.heappop(running)
            yield ended[0], ended[1]
        right, draws = rng.betavariate(4, 1.2), 1  # how often this unit is judged rightly
        while draws < MOST_DRAWS and rng.random() > right:
            draws += 1
        heapq.heappush(running, (now + sum(rng.lognormvariate(0, 0.5) for _ in range(draws)), unit, draws))
    while running:
        yield heapq.heappop(running)[1:]


def parts(count: int, size: int) -> Iterator[range]:
    """The numbers below `count`, so many at a time."""
    return (range(start, min(start + size, count)) for start in range(0, count, size))


def in_shards(units: Iterator[tuple[int, int]]) -> Iterator[list[tuple[int, int]]]:
    """As the shard writer closes them: no unit is split."""
    shard: list[tuple[int, int]] = []
    rows = 0
    for unit, draws in units:
        if rows + draws > SHARD:
            yield shard
            shard, rows = [], 0
        shard.append((unit, draws))
        rows += draws
    if shard:
        yield shard


def save(folder: Path, number: int, schema: pa.Schema, rows: int, columns: dict[str, Any]) -> None:
    """One shard; what is not given is null."""
    arrays = [
        pa.array(columns[field.name], field.type) if field.name in columns else pa.nulls(rows, field.type)
        for field in schema
    ]
    folder.mkdir(exist_ok=True)
    (folder / f"shard-{number:05d}.parquet").write_bytes(parquet_bytes(pa.Table.from_arrays(arrays, schema=schema)))


def tables(folder: Path, pairs: int, in_flight: int) -> None:
    """A table of pairs, and one of their judgments."""
    rng = random.Random(0)
    texts = [text(rng, 80) for _ in range(512)]
    groups = [f"category {number}" for number in range(15)]
    for number, some in enumerate(parts(pairs, SHARD)):
        names = [f"{pair:016x}" for pair in some]
        said = {
            name: [texts[(pair + shift) % 512] for pair in some] for shift, name in enumerate(("chosen", "rejected"))
        }
        of = {"split": [TRAIN] * len(some), "category": [groups[pair % 15] for pair in some]}
        save(folder / "pairs", number, PAIRS, len(some), {"pair_id": names, "instruction": names, **said, **of})
    for number, shard in enumerate(in_shards(as_answered(2 * pairs, in_flight, rng))):
        drawn = [(unit, j, j == draws - 1) for unit, draws in shard for j in range(draws)]
        ids = np.arange(len(drawn) * DRAWN) % 50_000
        letters = [
            ("A" if right == (unit % 2 == 0) else "B") if right or j % 8 != 7 else None for unit, j, right in drawn
        ]
        columns = {
            "pair_id": [f"{unit // 2:016x}" for unit, _, _ in drawn],
            "order": [ORDERS[unit % 2] for unit, _, _ in drawn],
            "sample": [j for _, j, _ in drawn],
            "verdict": letters,
            "correct": [right for _, _, right in drawn],
            "kept": [right for _, _, right in drawn],
            "text": [texts[(unit + j) % 512] for unit, j, _ in drawn],
            "token_ids": pa.ListArray.from_arrays(
                np.arange(len(drawn) + 1, dtype=np.int32) * DRAWN, pa.array(ids, pa.int32())
            ),
            **{name: [DRAWN] * len(drawn) for name in TOKENS},
        }
        save(folder / "judgments", number, JUDGMENTS, len(drawn), columns)


def seconds_of(act: Callable[[], Any], repeats: int) -> float:
    """The median of several times, of the processors: others may work on the machine."""
    times = []
    for _ in range(repeats):
        started = time.process_time()
        act()
        times.append(time.process_time() - started)
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


def writer(units: int) -> dict[str, Any]:
    """What the shard writer holds of the units that it was given, besides its open shard."""
    seen = SeenUnits()
    Units.of([pa.array(["pandas is imported"])])
    before, started = peak_mib(), time.process_time()
    for some in parts(units, 32):
        names = [f"{unit // 2:016x}:{ORDERS[unit % 2]}" for unit in some]
        for name, known in zip(names, seen.known(names), strict=True):
            if not known:
                seen.add(name)
    return {"units": len(seen), "seconds": round(time.process_time() - started, 1), "mib": peak_mib() - before}


def measured(pairs_folder: str, folder: str, repeats: int, some: int) -> dict[str, Any]:
    """Every pass of the driver over the tables, its memory after each, and the join."""
    pairs_files, files = shard_files(pairs_folder), shard_files(folder)
    found: dict[str, Any] = {"peak_mib_at_first": peak_mib()}

    def timed(name: str, act: Callable[[], Any]) -> None:
        found[name] = {"seconds": seconds_of(act, repeats), "peak_mib": peak_mib()}

    timed("training_rows", lambda: training_rows(pairs_folder))
    timed("closed_units", lambda: Units.of(closed_names(folder, KEY)))
    timed("tally", lambda: tally(folder, KEY, TOKENS))
    timed("unparsed", lambda: null_count(folder, "verdict"))
    timed("choose", lambda: choose(files, RULE))
    made = choose(files, RULE)
    timed("pass_rates", lambda: pass_rates_by(made.selection, pairs_files))
    timed("plan", lambda: joining.plan(pairs_files, made.selected, made.files))
    tasks = joining.plan(pairs_files, made.selected, made.files)
    sample = tasks[:: max(1, len(tasks) // some)]
    found["join"] = {
        "rows": len(made.selected),
        "tasks": len(tasks),
        "shards_of_pairs_a_task": max(len(task.shards) for task in tasks),
        "reads_of_the_table": amplification(tasks, files),
        "seconds_a_task": round(seconds_of(lambda: join(sample), repeats) / len(sample), 2),
    }
    return found


def of_tables(place: str, given: dict[str, Any], answer: Any) -> None:
    """Measure, in a process of its own."""
    folders = f"{place}/pairs", f"{place}/judgments"
    sizes = {name: sum(file.stat().st_size for file in Path(name).iterdir()) // 2**20 for name in folders}
    counts = {"judgment_shards": len(shard_files(folders[1])), "judgment_rows": tally(folders[1], KEY).rows}
    told = counts | {"mib_of_pairs": sizes[folders[0]], "mib_of_judgments": sizes[folders[1]]}
    answer.put(told | measured(*folders, given["repeats"], given["tasks"]))


def planned(in_flight: int) -> dict[str, Any]:
    """How a join is planned where every unit of a larger table is wanted; no table is written."""
    places: list[set[str]] = [set() for _ in parts(PLANNED, SHARD)]
    number = 0
    for number, shard in enumerate(in_shards(as_answered(2 * PLANNED, in_flight, random.Random(0)))):
        for unit, _ in shard:
            places[unit // 2 // SHARD].add(str(number))
    size = joining.shards_a_task(places)
    read = {f"reads_with_{n}": round(joining.reads(places, n) / (number + 1), 2) for n in (1, size)}
    return {"in_flight": in_flight, "shards_of_pairs_a_task": size, **read}


def of_larger(_: str, __: dict[str, Any], answer: Any) -> None:
    larger = [planned(in_flight) for in_flight in (512, 2048, 8192)]
    answer.put({"writer": writer(2 * SEEN), f"join_of_{PLANNED}_pairs": larger})


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--pairs", type=int, default=100_000)
    parser.add_argument("--in_flight", type=int, default=2048)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--tasks", type=int, default=8, help="of the join that are read")
    parser.add_argument("--output")
    given = parser.parse_args()
    options = {name: value for name, value in vars(given).items() if name != "output"}
    spawn = multiprocessing.get_context("spawn")
    found = {"processor": processor(), **options}
    with tempfile.TemporaryDirectory() as place:
        # Each in a process of its own, so that the memory of one is not counted with another's.
        writing = spawn.Process(target=tables, args=(Path(place), given.pairs, given.in_flight))
        writing.start()
        writing.join()
        for act in (of_tables, of_larger):
            answer = spawn.SimpleQueue()
            process = spawn.Process(target=act, args=(place, options, answer))
            process.start()
            found |= answer.get()
            process.join()
    told = json.dumps(found, indent=2)
    print(told)
    if given.output:
        Path(given.output).write_text(told + "\n")


if __name__ == "__main__":
    main()
