"""What is done and what is left: one pure decision over the ordered stages of a run."""

from __future__ import annotations

from collections.abc import Sequence

from ray_app.run.fingerprint import Fingerprint, check
from ray_app.run.folder import StageRecord


def pending(stages: Sequence[tuple[str, StageRecord | None, Fingerprint]]) -> list[int]:
    """Indexes of the stages to run, in order; `stages` are (name, committed record or None, fingerprint now).

    Raises InputError naming the setting and the stage when committed work was made with other settings. New stages
    (more iterations, more benchmarks) may stand anywhere between committed ones.
    """
    left = []
    for index, (name, record, wanted) in enumerate(stages):
        if record is None:
            left.append(index)
        else:
            check(record.fingerprint, wanted, name)
    return left
