"""Early-stopped votes through the judging program: recorded votes, replayed in many orders of arrival.

Hypothesis tests of the pure counting are in test_verdict.py.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from functools import cache
from typing import Any

import pytest
from replaying import LETTERS, Call, Replay

from ray_app.base.prompts import load_prompt
from ray_app.base.schema import derive_seed, unit_interval
from ray_app.base.verdict import Count, count, parse_verdict
from ray_app.engine.base import Sampling, UnitResult
from ray_app.generation.programs.judge import JudgeProgram

PROMPT = load_prompt("judge_pairwise_small")
SETS, MOST = 1500, 32


@cache
def recorded() -> list[str]:
    """Votes of 1,500 orders, 1 to 32 each, `-` unparsed: clear, close, tied, one-sided and unparsed ones."""
    draw = random.Random(20240805)
    sets = ["-" * k for k in (1, 2, 32)] + ["AB" * (k // 2) for k in (2, 10, 32)] + ["A" * k for k in (1, 2, 31, 32)]
    sets += ["A" * 16 + "B" * 16, "B" * 16 + "A" * 16, "A" * 17 + "B" * 15, "-" * 31 + "B"]
    while len(sets) < SETS:
        k = draw.randint(1, MOST)
        weights = draw.choice([(1, 1, 0), (1, 1, 1), (3, 1, 0), (1, 3, 1), (9, 1, 0), (1, 1, 8), (1, 9, 3)])
        sets.append("".join(draw.choices("AB-", weights, k=k)))
    return sets


def replayed(letters: list[str], arrival: int, early_stop: bool = True) -> list[tuple[UnitResult, Replay]]:
    """Every recorded order through the program; `arrival` decides which votes of a wave come back first."""

    async def one(index: int, votes: str) -> tuple[UnitResult, Replay]:
        seeds = {derive_seed(0, 0, "evaluation", str(index), "ab", j): j for j in range(len(votes))}

        def late(call: Call) -> int:
            return 1 + int(unit_interval("late", arrival, call.seed) * 8)

        engine = Replay(lambda call: LETTERS[votes[seeds[call.seed or 0]]], turns=late)
        program = JudgeProgram(
            PROMPT, Sampling(), "votes", len(votes), "j", 0, iteration=0, stage="evaluation", early_stop=early_stop
        )
        row = {"id": str(index), "order": "ab", "instruction": "q", "first": "a", "second": "b", "gold": None}
        return await program(engine, row), engine

    async def main() -> list[tuple[UnitResult, Replay]]:
        return list(await asyncio.gather(*(one(i, votes) for i, votes in enumerate(letters))))

    return asyncio.run(main())


def tally(votes: str) -> Count:
    return count(None if vote == "-" else vote for vote in votes)


def drawn(result: UnitResult) -> str:
    assert [row["sample"] for row in result.rows] == list(range(len(result.rows)))
    assert all(row["verdict"] == parse_verdict(row["text"]) for row in result.rows)
    return "".join(row["verdict"] or "-" for row in result.rows)


def test_the_recorded_votes_are_of_every_kind() -> None:
    kinds = Counter((tally(votes).verdict, "-" in votes) for votes in recorded())
    assert len(recorded()) >= 1000
    assert {len(votes) for votes in recorded()} == set(range(1, MOST + 1))
    assert all(kinds[verdict, unparsed] >= 30 for verdict in ("A", "B", None) for unparsed in (True, False))


@pytest.mark.parametrize("arrival", range(2))
def test_the_verdict_is_that_of_all_votes(arrival: int) -> None:
    found = replayed(recorded(), arrival)
    for votes, (result, _) in zip(recorded(), found, strict=True):
        asked = drawn(result)
        assert votes.startswith(asked), "sample j is vote j, whenever it comes back"
        assert tally(asked).verdict == tally(votes).verdict
    shares = [len(result.rows) / len(votes) for votes, (result, _) in zip(recorded(), found, strict=True)]
    assert sum(shares) / len(shares) < 0.9, "some were saved"


def test_no_vote_is_drawn_once_the_rest_cannot_change_the_result() -> None:
    for votes, (result, engine) in zip(recorded(), replayed(recorded(), 0), strict=True):
        k, asked = len(votes), drawn(result)
        before = tally(asked[:-1])
        rest = k - before.drawn
        ends = {Count(before.a + n, before.b + rest - n).verdict for n in (0, rest)}
        assert len(ends) > 1, "the last vote drawn could still change the result"
        if len(asked) < k:
            now = tally(asked)
            rest = k - now.drawn
            assert {Count(now.a + n, now.b + rest - n).verdict for n in (0, rest)} == {now.verdict}
        assert len(engine.calls) == len(result.rows), "nothing was asked and thrown away"


def test_votes_of_a_wave_are_asked_side_by_side() -> None:
    ((_, engine),) = replayed(["A" * 32], 0)
    assert (len(engine.calls), engine.most_running) == (17, 17)


def test_without_early_stop_all_votes_are_drawn() -> None:
    for votes, (result, engine) in zip(recorded(), replayed(recorded(), 1, early_stop=False), strict=True):
        assert drawn(result) == votes
        assert engine.most_running == len(votes)


def test_arrival_changes_nothing() -> None:
    results: list[Any] = [[result for result, _ in replayed(recorded()[:300], arrival)] for arrival in range(3)]
    assert results[0] == results[1] == results[2]
