"""Any row of a run, page by page: what the report's server shows where samples are not enough."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

from ray_app.errors import InputError
from ray_app.findings import samples
from ray_app.findings.run_tables import RunTables
from ray_app.findings.samples import Sample

LARGEST = 200  # rows of a page


def tables_of(tables: RunTables) -> list[str]:
    """Names of the tables there are, as `page_of` takes them: `pairs`, `judgments 2`, `evaluation 2 heldout`."""
    return [name for name in _names(tables) if _is_there(tables, name)]


def _names(tables: RunTables) -> list[str]:
    """What tables a run may have, by its commits; none of them is read."""
    made = ("pairs", "judgments", "train_set")
    of_iterations = [f"{name} {i}" for i in tables.iterations() if i > 0 for name in made]
    judged = [line for line in tables.metrics() if line["stage"] == "evaluation"]
    sets = [f"evaluation {line['iteration']} {line['extra']['set']}" for line in judged]
    return ["instructions", "pairs", *of_iterations, *sets]


def _is_there(tables: RunTables, table: str) -> bool:
    """Whether a table has rows, and, of votes, whether they are letters."""
    name, iteration, set_name = _parts(table)
    if name == "evaluation":
        return "order" in next(tables.votes(iteration or 0, set_name), {})
    return next(tables.rows(tables.folder.stage_dir(name, iteration)), None) is not None


def _parts(table: str) -> tuple[str, int | None, str]:
    name, _, rest = table.partition(" ")
    number, _, set_name = rest.partition(" ")
    return name, int(number) if number else None, set_name


def page_of(tables: RunTables, table: str, offset: int, limit: int, find: str = "") -> list[Sample]:
    """Rows `offset` to `offset + limit` of those that hold `find` (in any letter case). Raises InputError for a table
    that is not there, or a page that is too large.
    """
    if not 0 < limit <= LARGEST or offset < 0:
        raise InputError(f"a page has 1 to {LARGEST} rows and begins at 0 or later")
    if table not in _names(tables) or not _is_there(tables, table):
        raise InputError(f"no table {table!r}")
    wanted = find.lower()
    found = (row for row in _samples(tables, table) if wanted in _text(row))
    return list(itertools.islice(found, offset, offset + limit))


def _samples(tables: RunTables, table: str) -> Iterator[Sample]:
    name, iteration, set_name = _parts(table)
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
    units = {samples.vote_key(row): row for row in tables.units(iteration, name)}
    yield from samples.vote_samples(tables.votes(iteration, name), units, name, iteration)


def _text(sample: Sample) -> str:
    return "\n".join([sample["id"], *sample["tags"], *(text for _, text in sample["fields"])]).lower()
