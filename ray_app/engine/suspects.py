"""Rows that were in an engine when it died or stood still: who of them did it? Pure.

They are asked again alone: in an engine that is asked nothing else. Not one by one, for there may be hundreds, and one
is to blame at most as a rule: in a few groups. A group that is answered is innocent; of one that ends the engine, its
parts are suspects. A single row that has ended `CONVICTED_AFTER` engines alone is to blame.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

PARTS = 8
CONVICTED_AFTER = 2
T = TypeVar("T")


@dataclass(eq=False)
class Suspect(Generic[T]):
    """A row, and how many engines it has ended alone."""

    row: T
    ended: int = 0


Group = list[Suspect[T]]


class Suspects(Generic[T]):
    """Groups of suspects in the order in which they are asked; no group is larger than `largest`."""

    def __init__(self, largest: int) -> None:
        self.largest = largest
        self.fresh: Group[T] = []
        self.groups: deque[Group[T]] = deque()

    def add(self, rows: Iterable[T]) -> None:
        """Rows of an engine that was lost. Those of many calls to it come in turn, and are parted as one."""
        self.fresh += [Suspect(row) for row in rows]

    def next(self) -> Group[T]:
        """The next group to ask alone; empty when nobody is suspect any more."""
        self._part(self.fresh)
        self.fresh = []
        return self.groups.popleft() if self.groups else []

    def ended(self, group: Group[T]) -> list[T]:
        """A group that was asked alone has ended its engine: the rows that are convicted by it.

        Its parts go to the end: others are likely innocent, and their answers show that the engine works.
        """
        if len(group) > 1:
            self._part(group)
            return []
        (only,) = group
        only.ended += 1
        if only.ended >= CONVICTED_AFTER:
            return [only.row]
        self.groups.appendleft(group)
        return []

    def everyone(self) -> list[T]:
        """All rows that are suspects still; nobody is, after this."""
        left = [suspect.row for group in (*self.groups, self.fresh) for suspect in group]
        self.groups, self.fresh = deque(), []
        return left

    def _part(self, rows: Group[T]) -> None:
        size = max(1, min(self.largest, -(-len(rows) // PARTS)))
        self.groups.extend(rows[start : start + size] for start in range(0, len(rows), size))
