"""Pointwise judging: means of parsed scores, and the verdict they give."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ray_app.base.schema import RATINGS, PairwiseRow
from ray_app.benchmarks import Benchmark, Faulty
from ray_app.judging.pointwise import (
    mean_scores,
    pairwise_scoring_units,
    pointwise_outcomes,
    score_records,
    scores_of,
    unscored_ids,
)
from ray_app.run.shards import ShardWriter


def rating(identity: str, side: str, sample: int, score: float | None) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(RATINGS.names)
    return {**row, "benchmark": "b", "id": identity, "side": side, "sample": sample, "score": score}


def pair(identity: str, label: str) -> PairwiseRow:
    return PairwiseRow(identity, "", "Name a fruit.", "apple", "brick", label, identity)  # type: ignore[arg-type]


def test_unparsed_scores_do_not_enter_a_mean(tmp_path: Path) -> None:
    with ShardWriter(str(tmp_path), RATINGS, max_rows=4) as writer:
        writer.add([rating("x:1", "a", 0, 8.0), rating("x:1", "a", 1, None), rating("x:1", "b", 0, 3.0)])
        writer.add([rating("y", "a", 0, None), rating("y", "b", 0, 7.0)])
        writer.quarantine([{"id": "b:z:9", "stage": "evaluation", "reason": "prompt_too_long", "detail": ""}])
    assert mean_scores(str(tmp_path)) == {"x:1": {"a": 8.0, "b": 3.0}, "y": {"a": None, "b": 7.0}}
    assert unscored_ids(str(tmp_path)) == {"z:9": "prompt_too_long"}


def test_higher_wins_and_ties_or_missing_scores_are_unparsed() -> None:
    rows = [pair("r1", "A"), pair("r2", "A"), pair("r3", "B"), pair("r4", "A")]
    benchmark = Benchmark("b", rows, 5, (Faulty("r5", "", "r5", "empty_instruction", ""),))
    means = {"r1": {"a": 7.5, "b": 7.0}, "r2": {"a": 5.0, "b": 5.0}, "r3": {"a": 9.0, "b": 2.0}, "r4": {"a": 4.0}}
    outcomes = {o.id: o for o in pointwise_outcomes(benchmark, means, seed=0)}
    assert [outcomes[i].score() for i in ("r1", "r2", "r3", "r4", "r5")] == [1, 0, 0, 0, 0]
    assert [outcomes[i].final() for i in ("r1", "r2", "r3", "r4", "r5")] == ["A", None, "A", None, None]
    records = list(score_records(list(outcomes), means, {"r5": "empty_instruction"}))
    assert [record["verdict"] for record in records] == ["A", None, "A", None, None]
    assert records[0]["scores"] == {"a": 7.5, "b": 7.0}
    assert records[4]["quarantined"] == "empty_instruction"


def test_rows_with_the_same_texts_are_scored_once_whichever_way_round(tmp_path: Path) -> None:
    turned = PairwiseRow("r2", "", "Name a fruit.", "brick", "apple", "B", "r2")
    rows = [pair("r1", "A"), turned, pair("r3", "B"), PairwiseRow("r4", "", "Name a tree.", "oak", "elm", "A", "r4")]
    assert [unit["id"] for unit in pairwise_scoring_units("b", rows)] == ["r1", "r4"]
    with ShardWriter(str(tmp_path), RATINGS) as writer:
        writer.add([rating("r1", "a", 0, 8.0), rating("r1", "b", 0, 3.0)])
        writer.quarantine([{"id": "b:r4", "stage": "evaluation", "reason": "prompt_too_long", "detail": ""}])
    answers = scores_of(str(tmp_path), rows)
    means, lost = answers.of, answers.lost
    assert means == {"r1": {"a": 8.0, "b": 3.0}, "r2": {"a": 3.0, "b": 8.0}, "r3": {"a": 8.0, "b": 3.0}}
    assert lost == {"r4": "prompt_too_long"}


def test_one_unit_holds_both_sides() -> None:
    (unit,) = pairwise_scoring_units("b", [pair("r1", "A")])
    assert unit["sides"] == ["a", "b"]
    assert unit["responses"] == ["apple", "brick"]
