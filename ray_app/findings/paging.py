"""Any row of a run, page by page: what the report's server shows where samples are not enough."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence

from ray_app.errors import InputError
from ray_app.findings import lost, samples
from ray_app.findings.run_tables import RunTables
from ray_app.findings.samples import Place, Sample
from ray_app.judging.best_of import RATINGS_DIR
from ray_app.run import storage
from ray_app.run.folder import parts_of

LARGEST = 200  # rows of a page
LOST = "lost_"  # begins the name of a stage's lost rows


def tables_of(tables: RunTables) -> list[str]:
    """Names of the tables there are, as `page_of` takes them: `pairs`, `judgments 2`, `evaluation 2 heldout`,
    `ratings 2 rewardbench2`, `lost_pairs`; those of a second training as `dpo_judgments 2`.
    """
    return [name for name in _names(tables) if _is_there(tables, name)]


def _names(tables: RunTables) -> list[str]:
    """What tables a run may have, by its commits; none of them is read."""
    found = ["instructions", "pairs"]
    for phase in tables.phases():
        named, numbers = phase.folder.stage_name, [i for i in phase.iterations() if i > 0]
        found += [f"{named(name)} {i}" for i in numbers for name in ("pairs", "judgments", "train_set")]
        judged = [line for line in phase.metrics() if line["stage"] == "evaluation"]
        places = [f"{line['iteration']} {line['extra']['set']}" for line in judged]
        found += [f"{named(table)} {place}" for place in places for table in ("evaluation", "ratings")]
        found += map(_lost_name, lost.places(phase))
    return found


def _lost_name(where: lost.LostFrom) -> str:
    named = f"{where.place.phase}_{LOST}{where.stage}" if where.place.phase else f"{LOST}{where.stage}"
    number = [] if where.place.iteration is None else [str(where.place.iteration)]
    return " ".join([named, *number, where.place.set]).strip()


def _lost_from(tables: RunTables, table: str) -> lost.LostFrom | None:
    """The place of a phase's lost rows, by the table's name without the phase; None for any other table."""
    return next((where for where in lost.places(tables) if parts_of(_lost_name(where))[1] == table), None)


def _of_phase(tables: RunTables, table: str) -> tuple[RunTables, str]:
    """(the tables of the phase that a name begins with, the name without it)."""
    phase, name = parts_of(table)
    return (tables.phases()[-1] if phase else tables), name


def _is_there(tables: RunTables, table: str) -> bool:
    tables, table = _of_phase(tables, table)
    if where := _lost_from(tables, table):
        return bool(storage.list_files(where.directory, "quarantine-*.parquet"))
    name, iteration, set_name = _parts(table)
    if name in ("evaluation", "ratings"):
        return next(tables.rows(_place(tables, name, iteration or 0, set_name)), None) is not None
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
    page = list(itertools.islice(found, offset, offset + limit))
    if page and page[0]["kind"] == lost.KIND:
        page = lost.with_instructions(tables, page)
    return [samples.shown(row, wanted) for row in page]


def _samples(tables: RunTables, table: str) -> Iterator[Sample]:
    whole, why = table, [f"all rows of {table}"]
    tables, table = _of_phase(tables, whole)
    if where := _lost_from(tables, table):
        return lost.lost_samples(tables.quarantine(where.directory), where, why, tables.settings)
    name, iteration, set_name = _parts(table)
    place = Place(iteration, tables.folder.phase, set_name)
    if name in ("evaluation", "ratings"):
        return _evaluation(tables, name, place, why)
    rows = tables.rows(tables.folder.stage_dir(name, iteration))
    made: dict[str, Callable[[], Iterator[Sample]]] = {
        "instructions": lambda: samples.instruction_samples(rows, why),
        "pairs": lambda: samples.pair_samples(rows, why, place),
        "judgments": lambda: samples.judgment_samples(rows, why, place),
        "train_set": lambda: samples.training_samples(rows, why, place.phase),
    }
    return made[name]()


def _evaluation(tables: RunTables, table: str, place: Place, why: Sequence[str]) -> Iterator[Sample]:
    """Votes or scores beside what was shown: a set is as large as its benchmark, so its units fit into memory."""
    directory = _place(tables, table, place.iteration or 0, place.set)
    units = {samples.vote_key(row): row for row in tables.rows(storage.join(directory, "units"))}
    yield from samples.vote_samples(tables.rows(directory), units, why, place)


def _place(tables: RunTables, table: str, iteration: int, name: str) -> str:
    """The folder of a set's answers: letters or scores; of `ratings`, that of the scores of a best-of set."""
    folder = tables.evaluation(iteration, name)
    return storage.join(folder, RATINGS_DIR) if table == "ratings" else folder


def _text(sample: Sample) -> str:
    return "\n".join(
        [sample["id"], *sample["tags"], *(text for _, text in (*sample["fields"], *sample.get("prompt", ())))]
    ).lower()
