"""What is done and what is left: one pure decision over the ordered stages of a run."""

from __future__ import annotations

from collections.abc import Sequence

from ray_app.errors import InputError
from ray_app.run.fingerprint import Fingerprint, check
from ray_app.run.folder import StageRecord


def pending(stages: Sequence[tuple[str, StageRecord | None, Fingerprint]]) -> list[int]:
    """Indexes of the stages to run, in order; `stages` are (name, committed record or None, fingerprint now).

    Raises InputError naming the setting and the stage when committed work was made with other settings, and when a
    committed stage was made from one that is not committed (any more). New stages on which nothing committed depends
    (more iterations, more benchmarks) may stand anywhere between committed ones.
    """
    left = []
    committed = {record.fingerprint.digest for _, record, _ in stages if record is not None}
    missing: dict[str, str] = {}  # digest → name of the uncommitted stages so far
    for index, (name, record, wanted) in enumerate(stages):
        if record is None:
            left.append(index)
            missing.setdefault(wanted.digest, name)
            continue
        check(record.fingerprint, wanted, name)
        for digest in record.fingerprint.upstream:
            # Stages of several iterations may share a digest (pairs made anew with the same settings).
            if digest in missing and digest not in committed:
                raise InputError(
                    f"stage {missing[digest]!r} is not committed, but {name!r}, which was made from it, is: "
                    "put its stage.json back, or use another run name"
                )
    return left
