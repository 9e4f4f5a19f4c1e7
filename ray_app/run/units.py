"""Units by name: which of a table's rows closed shards hold already, and which a writer was given."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc


def unit_names(table: pa.Table, key: Sequence[str]) -> pa.ChunkedArray:
    """The unit of each row: its key columns as texts, joined as `schema.unit_id` does."""
    parts = [pc.cast(table.column(name), pa.string()) for name in key]
    return parts[0] if len(parts) == 1 else pc.binary_join_element_wise(*parts, ":")


@dataclass(frozen=True)
class Units:
    """A set of units: 8 bytes each, where a million names in a Python set take 120 MB, in every process that has one.
    Ray's object store holds it once a node.

    It holds 64-bit hashes. Among a million units that are left, one is taken for one of a million that are done with a
    probability of 5 in 10⁸; the stage would then end with one unit too few, and say so.
    """

    hashes: npt.NDArray[np.uint64]  # sorted, each once

    @classmethod
    def of(cls, names: Iterable[pa.Array | pa.ChunkedArray]) -> Units:
        """The units that these arrays of names hold."""
        parts = [_hashes(part) for part in names]
        return cls(np.unique(np.concatenate(parts)) if parts else np.empty(0, np.uint64))

    def __len__(self) -> int:
        return len(self.hashes)

    def left_of(self, table: pa.Table, key: Sequence[str]) -> pa.Table:
        """The rows of `table` whose unit (its columns `key`) is not among these."""
        if not len(self) or not table.num_rows:
            return table
        return table.filter(pa.array(~_among(self.hashes, _hashes(unit_names(table, key)))))


class SeenUnits:
    """A set of units that grows: the newest by name, the others in 8 bytes each, as `Units` has them.

    A new unit is taken for one of a million older ones with a probability of 5 in 10¹⁴; the stage would end with one
    unit too few, and say so.
    """

    NEWEST = 16_384  # names, about 2 MB

    def __init__(self) -> None:
        self.newest: set[str] = set()
        # Sorted, each less than half as long as the one before: so there are few, and a unit is merged few times.
        self.older: list[npt.NDArray[np.uint64]] = []

    def __len__(self) -> int:
        return len(self.newest) + sum(len(part) for part in self.older)

    def __contains__(self, name: str) -> bool:
        return self.known([name])[0]

    def add(self, name: str) -> None:
        """`name` must not be among them yet."""
        self.newest.add(name)
        if len(self.newest) >= self.NEWEST:
            part = np.sort(_hashes(pa.array(list(self.newest), pa.string())))
            while self.older and len(self.older[-1]) <= 2 * len(part):
                part = np.sort(np.concatenate([self.older.pop(), part]), kind="stable")
            self.older.append(part)
            self.newest = set()

    def known(self, names: Sequence[str]) -> list[bool]:
        """Which of these are among them."""
        if not self.older:
            return [name in self.newest for name in names]
        wanted = _hashes(pa.array(names, pa.string()))
        found = np.array([name in self.newest for name in names], bool)
        for part in self.older:
            found |= _among(part, wanted)
        return [bool(one) for one in found]


def _among(hashes: npt.NDArray[np.uint64], wanted: npt.NDArray[np.uint64]) -> npt.NDArray[np.bool_]:
    places = np.minimum(np.searchsorted(hashes, wanted), len(hashes) - 1)
    found: npt.NDArray[np.bool_] = hashes[places] == wanted
    return found


def _hashes(names: pa.Array | pa.ChunkedArray) -> npt.NDArray[np.uint64]:
    import pandas as pd  # half a second, which a command's --help need not wait for

    values = names.to_numpy(zero_copy_only=False) if isinstance(names, pa.Array) else names.to_numpy()
    hashed: npt.NDArray[np.uint64] = pd.util.hash_array(values.astype(object), categorize=False)
    return hashed
