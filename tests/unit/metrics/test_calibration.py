"""Reliability table and ECE on hand-computed votes."""

from __future__ import annotations

import dataclasses
import itertools
import random
from collections.abc import Sequence

import pytest
from making import outcome, votes

from ray_app.base.verdict import count
from ray_app.metrics.calibration import calibration
from ray_app.metrics.outcome import Outcome

ROWS = [
    outcome("1", "A", "A", "B", votes_ab=votes("AAAA"), votes_ba=votes("BBBA")),
    outcome("2", "A", "B", None, votes_ab=votes("BBBA"), votes_ba=votes("AABB")),
    outcome("3", "B", "B", "A", votes_ab=votes("BB--"), votes_ba=votes("AAAA")),
]


def test_hand_computed() -> None:
    found = calibration(ROWS, 0)
    assert found is not None
    assert [(b["n"], b["share"], b["accuracy"]) for b in found["bins"]] == [
        (1, 0.5, 1.0),
        (2, 0.75, 0.5),
        (2, 1.0, 1.0),
    ]
    assert found["ece"]["value"] == pytest.approx((0.5 * 1 + 0.25 * 2 + 0 * 2) / 5)
    assert found["ece"]["n"] == 5


def test_partial_or_absent_votes_have_no_calibration() -> None:
    assert calibration([*ROWS[:2], dataclasses.replace(ROWS[2], partial=True)], 0) is None
    assert calibration([outcome("1", "A", "A", "B")], 0) is None
    assert calibration([outcome("1", "A", "A", "B", votes_ab=votes("A"), votes_ba=votes("B"))], 0) is None


def test_quarantined_rows_are_no_obstacle() -> None:
    lost = outcome("lost", None, None, None, votes_ab=votes(""), votes_ba=votes(""))
    assert calibration([*ROWS, lost], 0) == calibration(ROWS, 0)


def test_a_calibrated_judge_has_a_small_error_and_an_overconfident_one_a_large() -> None:
    draw = random.Random(5)

    def judge(confident: bool) -> tuple[float, float]:  # (ECE, what chance alone makes of it)
        rows = []
        for i in range(600):
            share = draw.choice([0.65, 0.75, 0.85])
            right = draw.random() < share
            winner = round(20 * (0.95 if confident else share))
            letter, other = ("A", "B") if right else ("B", "A")
            tally = count([letter] * winner + [other] * (20 - winner))
            rows.append(outcome(f"{i}", "A", tally.verdict, orders=("ab",), votes_ab=tally))
        found = calibration(rows, 0)
        assert found is not None
        assert 0 < found["if_calibrated"]["mean"] < found["if_calibrated"]["p95"]
        return float(found["ece"]["value"]), float(found["if_calibrated"]["p95"])

    ece, by_chance = judge(confident=False)
    assert ece < min(0.06, by_chance)
    ece, by_chance = judge(confident=True)
    assert ece > max(0.15, by_chance)


def mean_if_calibrated(clusters: Sequence[Sequence[float]]) -> float:
    """The exact mean of the ECE over all ways in which clusters of verdicts, known by their shares, can come out: those
    of one draw a number between 0 and 1 together, and each is right where it is below its share.
    """
    n, mean = sum(map(len, clusters)), 0.0
    steps = [sorted({0.0, *shares, 1.0}) for shares in clusters]
    for drawn in itertools.product(*(list(itertools.pairwise(step)) for step in steps)):
        chance, apart = 1.0, [0.0] * 10
        for (low, high), shares in zip(drawn, clusters, strict=True):
            chance *= high - low
            for share in shares:
                apart[min(int(share * 10), 9)] += (low < share) - share
        mean += chance * sum(map(abs, apart)) / n
    return mean


def shared_by(group: str, number: int, *winners: int) -> Outcome:
    """A row of an instruction whose orders have majorities of so many among 20 votes."""
    tallies = [votes("A" * winner + "B" * (20 - winner)) for winner in winners]
    verdicts = [tally.verdict for tally in tallies]
    return outcome(f"{group}{number}", "A", *verdicts, group=group, votes_ab=tallies[0], votes_ba=tallies[1])


def test_what_a_calibrated_judge_would_show_is_the_mean_over_all_ways_in_which_it_can_come_out() -> None:
    rows = [shared_by("u", 0, 15, 15), shared_by("u", 1, 15, 11), shared_by("v", 0, 17, 15), shared_by("w", 0, 13, 11)]
    together = mean_if_calibrated([(0.75, 0.75, 0.75, 0.55), (0.85, 0.75), (0.65, 0.55)])
    apart = mean_if_calibrated([(0.75,)] * 4 + [(0.55,)] * 2 + [(0.85,), (0.65,)])
    assert together > apart + 0.03, "as independent verdicts they would come out nearer to their shares"
    found = [calibration(rows, seed) for seed in range(10)]  # 400 draws each
    means = [one["if_calibrated"]["mean"] for one in found if one is not None]
    assert sum(means) / 10 == pytest.approx(together, abs=0.01)


def test_the_percentile_of_a_calibrated_judge_is_that_of_its_draws() -> None:
    """Two verdicts of one instruction, both of share 3/4: both right or, once in four times, both wrong."""
    found = calibration([shared_by("u", 0, 15, 15)], 0)
    assert found is not None
    assert found["if_calibrated"]["p95"] == pytest.approx(0.75)
    assert found["if_calibrated"]["mean"] == pytest.approx(0.75 * 0.25 + 0.25 * 0.75, abs=0.04)


def test_few_calibrated_judges_lie_above_what_one_would_show() -> None:
    """Both orders of a pair are right or wrong together: taken as independent, 4 of 10 such judges would."""
    draw, above, runs = random.Random(11), 0, 60
    for _ in range(runs):
        rows = []
        for i in range(150):
            share = draw.choice([0.55, 0.65, 0.75, 0.85])
            winner, right = round(20 * share), draw.random() < share
            ab, ba = (("A", "B") if right else ("B", "A"), ("B", "A") if right else ("A", "B"))
            tallies = [count([letter] * winner + [other] * (20 - winner)) for letter, other in (ab, ba)]
            verdicts = [tally.verdict for tally in tallies]
            rows.append(outcome(f"{i}", "A", *verdicts, votes_ab=tallies[0], votes_ba=tallies[1]))
        found = calibration(rows, 0)
        assert found is not None
        above += found["ece"]["value"] > found["if_calibrated"]["p95"]
    assert above / runs <= 0.1
