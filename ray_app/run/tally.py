"""What the closed shards of a stage hold in all, read once: its numbers, and whether they are what was asked for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from ray_app.run.shards import QUARANTINED, shard_files, those
from ray_app.run.storage import read_parquet
from ray_app.run.units import unit_names


@dataclass(frozen=True)
class Tally:
    """Counts over all attempts of a stage. `rows` and `quarantined` are of all that is in the folder, `units` and
    `doubled` of the stage's own units.
    """

    rows: int = 0
    quarantined: dict[str, int] = field(default_factory=dict)  # rows by reason
    sums: dict[str, int] = field(default_factory=dict)  # of integer columns
    units: int = 0  # with rows or quarantined
    doubled: tuple[str, ...] = ()  # with rows in more than one shard
    superseded: tuple[str, ...] = ()  # quarantined, and with rows all the same

    def fault(self, asked: int) -> str | None:
        """Why a stage of `asked` units cannot be committed, or None. Pure."""
        if self.doubled:
            return (
                f"{len(self.doubled)} unit(s) have rows in two shards ({self.doubled[0]!r} among them), as after two "
                "drivers at once: remove one of the two files, and run the same command again"
            )
        if self.units < asked:
            return (
                f"{self.units} of {asked} units are in closed shards or quarantined, so {asked - self.units} are lost; "
                "nothing is committed, and the same command asks for them again"
            )
        if self.units > asked:
            return f"{self.units} units are in closed shards or quarantined, but only {asked} were asked for"
        return None


def tally(
    directory: str,
    key: Sequence[str],
    sums: Sequence[str] = (),
    where: tuple[str, str] | None = None,
    stage: str | None = None,
) -> Tally:
    """Read the closed shards of `directory`. `key`: the columns that name a unit; `sums`: integer columns to add up;
    `where` and `stage`: of which rows and faults the units are (`shards.closed_names`). Raises InputError naming a file
    that is damaged.
    """
    rows, added, units = 0, dict.fromkeys(sums, 0), [pa.array([], pa.string())]
    columns = list(dict.fromkeys([*key, *sums, *([where[0]] if where else [])]))
    for file in shard_files(directory):
        table = read_parquet(file, columns)
        rows += table.num_rows
        for name in sums:
            added[name] += pc.sum(table.column(name)).as_py() or 0
        units.append(pc.unique(unit_names(those(table, where), key)))
    reasons: Counter[str] = Counter()
    lost = [pa.array([], pa.string())]
    for file in shard_files(directory, QUARANTINED):
        faults = read_parquet(file, ["id", "stage", "reason"])
        reasons.update(faults.column("reason").to_pylist())
        lost += those(faults, ("stage", stage) if stage else None).column("id").chunks
    counts = pc.value_counts(pa.chunked_array(units))
    named, times = counts.field("values"), counts.field("counts")
    doubled = named.filter(pc.greater(times, 1))
    closed = pc.count_distinct(pa.chunked_array([named, *lost])).as_py()
    superseded = named.filter(pc.is_in(named, value_set=pa.chunked_array(lost).combine_chunks()))
    two = (tuple(sorted(names.to_pylist())) for names in (doubled, superseded))
    return Tally(rows, dict(reasons), added, closed, *two)
