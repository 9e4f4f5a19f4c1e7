"""Committed stages are never redone; a hole below committed work is an error."""

from __future__ import annotations

import pytest
from run_records import print_of, record_of

from ray_app.errors import InputError
from ray_app.run.fingerprint import Fingerprint
from ray_app.run.folder import StageRecord
from ray_app.run.resume import pending

Stage = tuple[str, StageRecord | None, Fingerprint]


def chain(*committed: bool) -> list[Stage]:
    """Stages that each follow from the one before."""
    stages: list[Stage] = []
    upstream: tuple[str, ...] = ()
    for number, done in enumerate(committed):
        printed = print_of(f"s{number}", {"seed": 1}, upstream)
        stages.append((f"s{number}", record_of(printed) if done else None, printed))
        upstream = (printed.digest,)
    return stages


@pytest.mark.parametrize(
    ("committed", "left"),
    [((False,) * 3, [0, 1, 2]), ((True, False, False), [1, 2]), ((True, True, True), []), ((), [])],
)
def test_what_is_left(committed: tuple[bool, ...], left: list[int]) -> None:
    assert pending(chain(*committed)) == left


def test_a_hole_below_committed_work_names_both_stages() -> None:
    with pytest.raises(InputError, match="'s1' is not committed, but 's2'"):
        pending(chain(True, False, True))


def test_a_new_benchmark_between_committed_stages_is_only_new_work() -> None:
    first, second = chain(True, True)
    added: Stage = ("evaluation new", None, print_of("evaluation", {"set": "new"}, (first[2].digest,)))
    assert pending([first, added, second]) == [1]


def test_more_iterations_are_only_new_work() -> None:
    stages = chain(True, True, False, False)
    assert pending(stages) == [2, 3]


def test_pairs_made_anew_each_iteration_share_a_digest() -> None:
    pairs = print_of("pairs", {"refresh": "each_iteration"})
    judged = print_of("judgments", {}, (pairs.digest,))
    later = print_of("judgments", {"judge": "iter_01"}, (pairs.digest,))
    stages: list[Stage] = [
        ("iteration 1: pairs", record_of(pairs, 1), pairs),
        ("iteration 1: judgments", record_of(judged, 1), judged),
        ("iteration 2: pairs", None, pairs),
        ("iteration 2: judgments", None, later),
    ]
    assert pending(stages) == [2, 3]


def test_another_setting_is_named_with_its_stage() -> None:
    stages = chain(True, False)
    changed = print_of("s0", {"seed": 2})
    with pytest.raises(InputError, match=r"setting seed was 1, is now 2.*'s0'"):
        pending([("s0", stages[0][1], changed), stages[1]])
