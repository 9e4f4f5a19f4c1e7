"""Takes entries out of the quarantine of a stage that is not committed: of rows that failed in an engine, so that they
are asked again (no fault of theirs was found), and of units that have rows.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

import pyarrow as pa
import pyarrow.compute as pc

from ray_app.run.shards import QUARANTINED, shard_files
from ray_app.run.storage import read_parquet, remove, write_parquet_atomic


def reopen(directory: str, reasons: Collection[str], stage: str | None = None) -> int:
    """Remove the entries with one of `reasons` from the quarantine of a stage that is not committed, and count them.

    `stage`: of this stage alone, where several write into the folder. The later outcome of a row so stands for it. Only
    for the one driver of the run.
    """
    return _take_out(directory, lambda faults: _among(faults, "reason", reasons), stage)


def supersede(directory: str, units: Collection[str], stage: str | None = None) -> int:
    """The same with the entries of `units`, which have rows: of two drivers, of which one stood still and wrote late,
    the one has quarantined what the other got an answer for.
    """
    return _take_out(directory, lambda faults: _among(faults, "id", units), stage)


def _among(faults: pa.Table, column: str, values: Collection[str]) -> pa.ChunkedArray:
    return pc.is_in(faults.column(column), value_set=pa.array(sorted(values), pa.string()))


def _take_out(directory: str, which: Callable[[pa.Table], pa.ChunkedArray], stage: str | None) -> int:
    found = 0
    for file in shard_files(directory, QUARANTINED):
        faults = read_parquet(file)
        chosen = which(faults)
        if stage is not None:
            chosen = pc.and_(chosen, pc.equal(faults.column("stage"), stage))
        left = faults.filter(pc.invert(chosen))
        if left.num_rows == faults.num_rows:
            continue
        found += faults.num_rows - left.num_rows
        if left.num_rows:
            write_parquet_atomic(left, file)
        else:
            remove(file)
    return found
