"""Texts beside verdicts: every sample of every order, in the order of the samples, whichever shard holds them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ray_app.base.schema import VOTES
from ray_app.judging.explanations import Explanations
from ray_app.judging.sharing import Source
from ray_app.run.shards import ShardWriter


def vote(identity: str, order: str, sample: int) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(VOTES.names)
    return {**row, "id": identity, "order": order, "sample": sample, "text": f"{identity} {order} {sample}"}


def test_texts_are_joined_by_id_and_sample(tmp_path: Path) -> None:
    with ShardWriter(str(tmp_path), VOTES, max_rows=2) as writer:
        writer.add([vote("x", "ba", 1), vote("x", "ba", 0)])
        writer.add([vote("y", "ab", 0)])
        writer.add([vote("x", "ab", 0)])
    explanations = Explanations(str(tmp_path))
    assert explanations.of("x") == {"ab": ["x ab 0"], "ba": ["x ba 0", "x ba 1"]}
    assert explanations.of("y") == {"ab": ["y ab 0"]}
    assert explanations.of("never judged") == {}
    (record,) = explanations.added([{"id": "y", "verdict": "A"}])
    assert record == {"id": "y", "verdict": "A", "explanations": {"ab": ["y ab 0"]}}


def test_a_row_that_shares_the_votes_of_another_shares_its_texts(tmp_path: Path) -> None:
    with ShardWriter(str(tmp_path), VOTES) as writer:
        writer.add([vote("x", "ab", 0)])
        writer.add([vote("x", "ba", 0)])
    sources = {"x": Source("x"), "twin": Source("x"), "turned": Source("x", turned=True)}
    explanations = Explanations(str(tmp_path), sources=sources)
    assert explanations.of("twin") == explanations.of("x") == {"ab": ["x ab 0"], "ba": ["x ba 0"]}
    assert explanations.of("turned") == {"ab": ["x ba 0"], "ba": ["x ab 0"]}
    (record,) = explanations.added([{"id": "turned", "orders": {"ab": {"verdict": "A"}}}])
    assert record["explanations"] == {"ab": ["x ba 0"]}, "the one order that this row was asked in"
