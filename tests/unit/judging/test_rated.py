"""Rated sets: one unit a response, mean ratings by id, and what their verdict file says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ray_app.base.schema import RATINGS
from ray_app.base.settings_parts import SamplingSettings
from ray_app.benchmarks import load_benchmark
from ray_app.judging.protocol import Voting
from ray_app.judging.rated import Rated, rated_units
from ray_app.judging.registry import has_pairs, protocol_for
from ray_app.judging.spending import verdicts_of
from ray_app.run.shards import ShardWriter

FIXTURE = Path(__file__).parents[2] / "fixtures" / "benchmarks" / "rated.jsonl"
VOTING = Voting(SamplingSettings())


def rating(identity: str, sample: int, score: float | None) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(RATINGS.names)
    return {**row, "benchmark": "rated", "id": identity, "side": "a", "sample": sample, "score": score}


def test_from_units_to_the_verdict_file(tmp_path: Path) -> None:
    benchmark = load_benchmark(f"rated={FIXTURE}")
    assert isinstance(protocol_for("pointwise", benchmark), Rated)
    assert not has_pairs(benchmark)
    units = list(rated_units("rated", benchmark))
    assert [(u["id"], u["sides"], u["responses"]) for u in units[:2]] == [
        ("1", ["a"], ["An apple."]),
        ("2", ["a"], ["A chair."]),
    ]
    assert len(units) == 6
    with ShardWriter(str(tmp_path), RATINGS) as writer:
        writer.add([rating("1", 0, 8.0), rating("1", 1, 10.0)])
        for identity in ("2", "3", "4"):
            writer.add([rating(identity, 0, float(identity)), rating(identity, 1, None)])
        writer.add([rating("5", 0, None)])
        writer.quarantine([{"id": "rated:6", "stage": "evaluation", "reason": "prompt_too_long", "detail": ""}])
    answers = Rated().read(str(tmp_path), benchmark, VOTING)
    assert answers.of == {"1": 9.0, "2": 2.0, "3": 3.0, "4": 4.0, "5": None}
    records = list(Rated().records(benchmark, answers, VOTING))
    assert records[0] == {"id": "1", "rating": 9.0}
    assert records[5] == {"id": "6", "rating": None, "quarantined": "prompt_too_long"}
    assert records[7] == {"id": "8", "rating": None, "quarantined": "no_score"}
    summary = Rated().summary(benchmark, answers, VOTING)
    assert summary["overall"]["unparsed_rate"]["value"] == 4 / 8
    assert summary["quarantined"] == {"empty_response": 1, "no_score": 1, "prompt_too_long": 1}
    assert set(Rated().headline(summary)) == {"spearman", "unparsed_rate"}
    assert verdicts_of(benchmark, answers) == 5
