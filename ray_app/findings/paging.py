"""Any row of a run, page by page: what the report's server shows where samples are not enough."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

from ray_app.errors import InputError
from ray_app.findings import samples
from ray_app.findings.run_tables import Row, RunTables
from ray_app.findings.samples import Sample

LARGEST = 200  # rows of a page


def tables_of(tables: RunTables) -> list[str]:
    """Names of the tables there are, as `page_of` takes them: `pairs`, `judgments 2`, `evaluation 2 heldout`."""
    once = [name for name in ("instructions", "pairs") if _any(tables.rows(tables.folder.stage_dir(name)))]
    found = [*once]
    for i in (number for number in tables.iterations() if number > 0):
        for name in ("pairs", "judgments", "train_set"):
            if _any(tables.rows(tables.folder.stage_dir(name, i))):
                found.append(f"{name} {i}")
    for line in tables.metrics():
        if line["stage"] == "evaluation":
            name = f"evaluation {line['iteration']} {line['extra']['set']}"
            rows = tables.votes(line["iteration"], line["extra"]["set"])
            found += [name] if "order" in next(rows, {}) else []  # votes that are letters
    return found


def page_of(tables: RunTables, table: str, offset: int, limit: int, find: str = "") -> list[Sample]:
    """Rows `offset` to `offset + limit` of those that hold `find` (in any letter case). Raises InputError for a table
    that is not there, or a page that is too large.
    """
    if not 0 < limit <= LARGEST or offset < 0:
        raise InputError(f"a page has 1 to {LARGEST} rows and begins at 0 or later")
    if table not in tables_of(tables):
        raise InputError(f"no table {table!r}")
    wanted = find.lower()
    found = (row for row in _samples(tables, table) if wanted in _text(row))
    return list(itertools.islice(found, offset, offset + limit))


def _samples(tables: RunTables, table: str) -> Iterator[Sample]:
    name, _, rest = table.partition(" ")
    number, _, set_name = rest.partition(" ")
    iteration = int(number) if number else None
    rows = tables.rows(tables.folder.stage_dir(name, iteration)) if name != "evaluation" else iter(())
    made: dict[str, Callable[[], Iterator[Sample]]] = {
        "instructions": lambda: samples.instruction_samples(rows, table),
        "pairs": lambda: samples.pair_samples(rows, table),
        "judgments": lambda: samples.judgment_samples(rows, table, iteration or 0),
        "train_set": lambda: samples.training_samples(rows, table),
        "evaluation": lambda: _evaluation(tables, iteration or 0, set_name),
    }
    return made[name]()


def _evaluation(tables: RunTables, iteration: int, name: str) -> Iterator[Sample]:
    """Votes beside what was shown: a set is as large as its benchmark, so its units fit into memory."""
    units: dict[tuple[Any, Any], Row] = {(row["id"], row["order"]): row for row in tables.units(iteration, name)}
    yield from samples.vote_samples(tables.votes(iteration, name), units, name, iteration)


def _text(sample: Sample) -> str:
    return "\n".join([sample["id"], *sample["tags"], *(text for _, text in sample["fields"])]).lower()


def _any(rows: Iterator[Row]) -> bool:
    return next(rows, None) is not None
