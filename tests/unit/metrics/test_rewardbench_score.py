"""RewardBench: published per-subset results, and per-row outcomes, give the published section scores."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

import pytest
from making import outcome

from ray_app.benchmarks import Benchmark
from ray_app.metrics.outcome import Outcome
from ray_app.metrics.rewardbench import (
    OVERALL,
    ROWS,
    SECTIONS,
    WEIGHTS,
    leaderboard_json,
    rewardbench,
    section_scores,
    subset_scores,
)
from ray_app.metrics.summary import summarise

PUBLISHED = Path(__file__).parents[2] / "fixtures" / "benchmarks" / "published_rewardbench.json"
MODELS: list[dict[str, Any]] = json.loads(PUBLISHED.read_text())


def rows_of(scores: dict[str, float]) -> list[Outcome]:
    """Rows in one order with each subset's score; an odd half (official credit) is an unparsed row."""
    out = []
    for subset, n in ROWS.items():
        halves = round(2 * scores[subset] * n)
        assert halves / (2 * n) == pytest.approx(scores[subset])
        right, unparsed = divmod(halves, 2)
        verdicts: list[str | None] = ["A"] * right + [None] * unparsed + ["B"] * (n - right - unparsed)
        out += [outcome(f"{subset}-{i}", "A", v, subset=subset, orders=("ab",)) for i, v in enumerate(verdicts)]
    return out


def test_the_published_set() -> None:
    assert (sum(ROWS.values()), len(ROWS)) == (2985, 23)
    assert [sum(subsets.values()) for subsets in SECTIONS.values()] == [358, 456, 740, 1968]
    assert WEIGHTS["math-prm"] == sum(n for subset, n in WEIGHTS.items() if subset.startswith("hep-"))


@pytest.mark.parametrize("model", MODELS, ids=[m["model"] for m in MODELS])
def test_published_subset_results_give_published_section_scores(model: dict[str, Any]) -> None:
    found = section_scores(model["subsets"])
    overall = found.pop(OVERALL)
    assert overall is not None
    assert {name: round(v, 3) for name, v in found.items() if v is not None} == model["sections"]
    digits = len(model["overall_percent"].split(".")[1])
    assert f"{100 * overall:.{digits}f}" == model["overall_percent"]


@pytest.mark.parametrize("model", MODELS[:1], ids=[m["model"] for m in MODELS[:1]])
def test_per_row_outcomes_give_them_too(model: dict[str, Any]) -> None:
    rows = rows_of(model["subsets"])
    random.Random(0).shuffle(rows)
    found = rewardbench(rows, 0, 200)
    assert found["complete"]
    for name, score in model["sections"].items():
        official = found["official"][name]
        assert round(official["value"], 3) == score
        assert official["low"] < official["value"] < official["high"]
    assert f"{100 * found['official'][OVERALL]['value']:.3f}" == model["overall_percent"]
    assert found["official"]["Reasoning"]["n"] == 447 + 6 * 164
    assert subset_scores(rows) == pytest.approx(model["subsets"])


def test_unparsed_is_half_in_one_column_and_wrong_in_the_other() -> None:
    rows = [outcome("1", "A", None, "B", subset="math-prm"), outcome("2", "A", "A", "B", subset="hep-go")]
    found = rewardbench(rows, 0, 10)
    # math-prm weighs six times a hep subset.
    assert found["official"]["Reasoning"]["value"] == pytest.approx((0.75 * 984 + 1 * 164) / 1148)
    assert found["unparsed_as_wrong"]["Reasoning"]["value"] == pytest.approx((0.5 * 984 + 1 * 164) / 1148)
    assert found["official"]["Chat"]["value"] is None
    assert found["official"][OVERALL]["value"] is None
    assert not found["complete"]


def test_a_small_subset_that_is_all_right_leaves_its_section_uncertain() -> None:
    """Six rows of math-prm, which has six sevenths of the weight: every resample of them is all right too."""
    rows = [outcome(f"m{i}", "A", "A", "B", subset="math-prm") for i in range(6)]
    rows += [outcome(f"g{i}", "A", *(("A", "B") if i % 10 else ("B", "A")), subset="hep-go") for i in range(200)]
    benchmark = Benchmark("rewardbench", [], len(rows), spec="rewardbench")
    found = summarise(benchmark, rows, seed=0, resamples=200)["rewardbench"]
    middle = (6 + 1.96**2 / 2) / (6 + 1.96**2)  # Agresti and Coull's, of six of six
    half = 1.96 * 984 / (984 + 164) * math.sqrt(middle * (1 - middle) / 6)
    for column in ("official", "unparsed_as_wrong"):
        section = found[column]["Reasoning"]
        assert section["value"] == pytest.approx((984 + 0.9 * 164) / (984 + 164))
        assert section["value"] - section["low"] == pytest.approx(half, rel=0.05)
        assert section["high"] == 1


def test_rows_of_unknown_subsets_are_told() -> None:
    rows = [outcome("1", "A", "A", "B", subset="math-prm"), outcome("2", "A", "A", "B", subset="mine")]
    assert rewardbench(rows, 0, 10)["rows_of_no_section"] == 1


def test_leaderboard_form() -> None:
    rows = [outcome("1", "A", "A", None, subset="hep-go"), outcome("2", "A", "B", "A", subset="donotanswer")]
    made = leaderboard_json({"rewardbench": rewardbench(rows, 0, 10)}, "org/model")
    assert made == {
        "chat_template": None,
        "donotanswer": 0.0,
        "hep-go": 0.75,
        "model": "org/model",
        "model_type": "Generative",
    }
    assert list(made) == sorted(made)
