"""Which replica takes the next rows: the least loaded of those that answer. Pure."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator


class Replicas:
    """Load and health of the replicas of a pool, by index."""

    def __init__(self, count: int) -> None:
        self.load = [0] * count
        self.silent: set[int] = set()  # not heard lately: it may come back
        self.dead: set[int] = set()  # gone for good

    @property
    def all_dead(self) -> bool:
        return len(self.dead) == len(self.load)

    def pick(self) -> int | None:
        """The least loaded replica that answers, or None."""
        usable = [i for i in range(len(self.load)) if i not in self.silent and i not in self.dead]
        return min(usable, key=lambda i: self.load[i], default=None)

    @contextlib.contextmanager
    def busy(self, index: int, rows: int) -> Iterator[None]:
        """Count `rows` as load of a replica for the length of the block."""
        self.load[index] += rows
        try:
            yield
        finally:
            self.load[index] -= rows
