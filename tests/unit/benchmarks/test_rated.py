"""Single responses with human scores, in the common form and from HelpSteer2."""

from __future__ import annotations

from pathlib import Path

import pytest

from ray_app.base.schema import content_id
from ray_app.benchmarks import load_benchmark
from ray_app.benchmarks.registry import has_ratings
from ray_app.errors import InputError

FIXTURES = Path(__file__).parents[2] / "fixtures" / "benchmarks"


def test_the_common_form() -> None:
    benchmark = load_benchmark(f"rated={FIXTURES / 'rated.jsonl'}")
    assert (benchmark.name, benchmark.spec, benchmark.kind, benchmark.n) == ("rated", "rated", "rated", 8)
    assert [(row.id, row.score) for row in benchmark.rated] == [
        *[("1", 5.0), ("2", 1.0), ("3", 4.5)],
        *[("4", 1.0), ("5", 4.0), ("6", 2.0)],
    ]
    assert benchmark.rated[0].group == benchmark.rated[1].group == content_id("Name a fruit.")
    assert {q["id"]: q["reason"] for q in benchmark.quarantined} == {"7": "empty_response", "8": "no_score"}
    assert "Name a tree." in list(benchmark.instructions())
    assert len(load_benchmark(f"rated={FIXTURES / 'rated.jsonl'}", limit=3).rated) == 3


def test_helpsteer2_keeps_every_response_ties_too() -> None:
    benchmark = load_benchmark(f"helpsteer2_ratings={FIXTURES / 'helpsteer2.jsonl'}")
    raw = (FIXTURES / "helpsteer2.jsonl").read_text().splitlines()
    assert benchmark.n == len(raw)
    assert benchmark.rated[0].score == 4
    assert len({row.group for row in benchmark.rated}) < len(benchmark.rated)


def test_a_file_of_pairs_is_another_shape() -> None:
    for name in ("rated", "helpsteer2_ratings"):
        with pytest.raises(InputError, match="has no column") as caught:
            load_benchmark(f"{name}={FIXTURES / 'pairwise.jsonl'}")
        assert "\n" not in str(caught.value)
        assert has_ratings(f"{name}=x.jsonl")
    assert not has_ratings("helpsteer2=x.jsonl")
