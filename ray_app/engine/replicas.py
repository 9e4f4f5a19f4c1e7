"""Which replica takes the next rows, and what becomes of one that fails. Pure: whoever asks brings the time.

up        takes rows, the least loaded first
aside     up, and kept for rows that are asked alone (`suspects.py`)
resting   answered with errors several times in a row: takes nothing until a row that was answered before is again
down      died or stands still, and is being built anew
dead      is not built anew any more
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

BREAK_AFTER = 8  # errors in a row: a row that is at fault itself fails alone
REST_S, LONGEST_REST_S = 10.0, 300.0
PAUSES_S = (0.0, 1.0, 10.0, 60.0)  # before a replica is built anew that has answered nothing since; then it is dead
EXPLAINED = 3  # rows that a replica may be lost over without an answer between
MANY, WINDOW_S = 60, 3600.0  # times that a replica is built anew within so long; then it waits for its turn


@dataclass
class _Replica:
    load: int = 0
    down: bool = False
    dead: bool = False
    errors: int = 0  # in a row
    resting: bool = False
    rests: int = 0  # in a row
    fruitless: int = 0  # losses since its last answer that no row explains
    explained: int = 0  # rows since its last answer that were found to end it
    losses: list[float] = field(default_factory=list)  # when


class Replicas:
    """Load and health of the replicas of a pool, by index. `patient`: none is ever given up, as a service wants it."""

    def __init__(self, count: int, patient: bool = False) -> None:
        self.patient = patient
        self.all = [_Replica() for _ in range(count)]
        self.aside: int | None = None
        self.answered_ever = False

    @property
    def load(self) -> list[int]:
        """Rows that each replica is asked now."""
        return [one.load for one in self.all]

    @property
    def all_dead(self) -> bool:
        return all(one.dead for one in self.all)

    @property
    def coming_back(self) -> bool:
        """Whether any replica is being built anew."""
        return any(one.down and not one.dead for one in self.all)

    def usable(self, index: int) -> bool:
        """Whether a replica takes rows."""
        one = self.all[index]
        return not (one.dead or one.down or one.resting)

    def pick(self, avoid: Collection[int] = ()) -> int | None:
        """The least loaded replica that takes rows, or None. One of `avoid` only where no other does."""
        found = [i for i in range(len(self.all)) if i != self.aside and self.usable(i)]
        return min(found, key=lambda i: (i in avoid, self.all[i].load), default=None)

    def set_aside(self) -> int | None:
        """The replica for rows that are asked alone: the same one again while it works or is being built anew, so that
        the others work on; else the least loaded. None where all are dead.
        """
        living = [i for i, one in enumerate(self.all) if not one.dead]
        if self.aside not in living or self.all[self.aside].resting:
            self.aside = min(living, key=lambda i: (not self.usable(i), self.all[i].load), default=None)
        return self.aside

    @contextlib.contextmanager
    def busy(self, index: int, rows: int) -> Iterator[None]:
        """Count `rows` as load of a replica for the length of the block."""
        self.all[index].load += rows
        try:
            yield
        finally:
            self.all[index].load -= rows

    def answered(self, index: int) -> None:
        """A row was answered."""
        one = self.all[index]
        one.errors = one.rests = one.fruitless = one.explained = 0
        one.resting = False
        self.answered_ever = True

    def erred(self, index: int) -> bool:
        """A request failed in the replica: whether its row may be to blame. With too many in a row it is likely the
        replica, which then rests.

        While nobody has answered anything, nobody rests: the fault is likely one of all, and is to be told soon.
        """
        one = self.all[index]
        one.errors += 1
        if self.answered_ever and one.errors >= BREAK_AFTER:
            one.resting = True
        return not one.resting

    def rest(self, index: int) -> float:
        """Seconds until a resting replica is tried again: none at first, for its rows may have been to blame."""
        one = self.all[index]
        one.rests += 1
        return 0.0 if one.rests == 1 else min(LONGEST_REST_S, REST_S * 2 ** (one.rests - 2))

    def lost(self, index: int, now: float) -> float | None:
        """A replica died, stands still, or did not start: seconds until it is to be built anew; None: it is dead now.

        A rate limits this and no count over its life, for a run may take weeks.
        """
        one = self.all[index]
        one.down = True
        if one.fruitless >= len(PAUSES_S) and not self.patient:
            one.dead = True
            return None
        pause = PAUSES_S[min(one.fruitless, len(PAUSES_S) - 1)]
        one.fruitless += 1
        one.losses = [then for then in one.losses if now - then < WINDOW_S] + [now]
        if len(one.losses) > MANY:
            pause = max(pause, one.losses[-MANY - 1] + WINDOW_S - now)
        return pause

    def explain(self, index: int) -> None:
        """A row was found to be what a replica was lost over: its losses do not count. Not for ever: a replica that
        answers nothing may be broken, and no row to blame.
        """
        one = self.all[index]
        one.explained += 1
        if one.explained <= EXPLAINED:
            one.fruitless = 0

    def restored(self, index: int) -> None:
        """A replica that was down answers again: it has a new process, so old errors say nothing of it."""
        one = self.all[index]
        one.down, one.resting, one.errors, one.rests = False, False, 0, 0

    def gone(self, index: int) -> None:
        """A replica does not come back."""
        self.all[index].down = self.all[index].dead = True
