"""RM-Bench's figures against the definition in its README, written out again over raw matrices; PPE's mean of sets."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from making import outcome

from ray_app.benchmarks import Benchmark, load_benchmark
from ray_app.metrics.outcome import Outcome
from ray_app.metrics.rmbench import rmbench
from ray_app.metrics.summary import summarise
from ray_app.metrics.terminal_table import to_text

FIXTURES = Path(__file__).parents[2] / "fixtures" / "benchmarks"
STYLES = ("concise", "detailed", "markdown")
DOMAINS = {"chat": 3, "math": 5, "code": 2, "safety-refuse": 4, "safety-response": 1}


def wins(seed: int = 0) -> list[tuple[str, str, np.ndarray]]:
    """(domain, question, 3 x 3 matrix of wins) of every question."""
    draw = np.random.default_rng(seed)
    return [(d, f"{d}{i}", draw.integers(0, 2, (3, 3))) for d, n in DOMAINS.items() for i in range(n)]


def outcomes_of(questions: list[tuple[str, str, np.ndarray]]) -> list[Outcome]:
    """A judge with these wins in both orders."""
    rows = []
    for domain, question, matrix in questions:
        for i in range(3):
            for j in range(3):
                level = "hard" if i < j else "normal" if i == j else "easy"
                ab, ba = ("A", "B") if matrix[i, j] else ("B", "A")
                fields = {"subset": f"{domain}-{level}", "group": question}
                rows.append(outcome(f"{question}/{STYLES[i]}-{STYLES[j]}", "A", ab, ba, **fields))
    return rows


def expected(questions: list[tuple[str, str, np.ndarray]]) -> dict[str, float]:
    by_domain = {}
    for domain in ("chat", "math", "code", "safety"):
        mean = np.mean([m for d, _, m in questions if d.startswith(domain)], axis=0)
        upper, lower = np.triu(mean, 1).sum() / 3, np.tril(mean, -1).sum() / 3
        by_domain[domain] = {"hard": upper, "normal": np.diag(mean).mean(), "easy": lower}
    scores = {domain: float(np.mean(list(levels.values()))) for domain, levels in by_domain.items()}
    levels = {lv: float(np.mean([by_domain[d][lv] for d in by_domain])) for lv in ("hard", "normal", "easy")}
    return {**scores, **levels, "average": float(np.mean(list(scores.values())))}


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_figures_are_those_of_the_definition(seed: int) -> None:
    questions = wins(seed)
    rows = outcomes_of(questions)
    random.Random(seed).shuffle(rows)
    found = rmbench(rows, seed=0, resamples=100)
    assert {name: e["value"] for name, e in found["figures"].items()} == pytest.approx(expected(questions))
    assert found["figures"]["safety"]["n"] == 45
    average = found["figures"]["average"]
    assert average["low"] is not None
    assert average["high"] is not None
    assert average["low"] < (average["value"] or 0) < average["high"]
    mean = np.mean([m for _, _, m in questions], axis=0)
    assert [[found["matrix"][c][r]["value"] for r in STYLES] for c in STYLES] == pytest.approx(mean)
    assert not found["complete"]


def test_a_missing_cell_leaves_its_figures_undefined() -> None:
    rows = [o for o in outcomes_of(wins()) if o.subset != "code-hard"]
    found = rmbench([*rows, outcome("x", "A", "A", "B", subset="poems-easy")], seed=0, resamples=50)
    undefined = {name for name, e in found["figures"].items() if e["value"] is None}
    assert undefined == {"code", "hard", "average"}
    assert found["rows_of_no_domain"] == 1


def test_a_figure_of_one_instruction_has_no_interval() -> None:
    one = [("code", "code0", np.eye(3)), *(q for q in wins() if q[0] != "code")]
    found = rmbench(outcomes_of(one), seed=0, resamples=50)["figures"]
    assert (found["code"]["low"], found["code"]["high"]) == (None, None)
    assert found["chat"]["low"] is not None


def test_a_small_cell_that_is_all_right_leaves_its_figures_uncertain() -> None:
    """Six rows of a cell: every resample of them is all right too, and a bootstrap would know them for certain."""
    rows = [outcome(f"h{i}", "A", "A", "B", subset="chat-hard") for i in range(6)]
    for level in ("normal", "easy"):
        verdicts = [("A", "B") if i % 10 else ("B", "A") for i in range(400)]
        rows += [outcome(f"{level}{i}", "A", *given, subset=f"chat-{level}") for i, given in enumerate(verdicts)]
    benchmark = Benchmark("rmbench", [], len(rows), spec="rmbench")
    found = summarise(benchmark, rows, seed=0, resamples=200)["rmbench"]["figures"]["chat"]
    middle = (6 + 1.96**2 / 2) / (6 + 1.96**2)  # Agresti and Coull's, of six of six
    half = 1.96 / 3 * np.sqrt(middle * (1 - middle) / 6)
    assert found["value"] == pytest.approx((1 + 0.9 + 0.9) / 3)
    assert found["value"] - found["low"] == pytest.approx(half, rel=0.05)


def test_unparsed_is_wrong_and_one_order_of_two_is_half() -> None:
    row = outcome("q/concise-concise", "A", "A", None, subset="chat-normal", group="q")
    assert rmbench([row], seed=0, resamples=20)["matrix"]["concise"]["concise"]["value"] == 0.5


@pytest.mark.parametrize(("name", "path"), [("rmbench", "rmbench.jsonl"), ("ppe_correctness", "ppe_correctness")])
def test_summary_and_table(name: str, path: str) -> None:
    benchmark = load_benchmark(f"{name}={FIXTURES / path}")
    turned = {"A": "B", "B": "A"}
    rows = [outcome(r.id, r.label, r.label, turned[r.label or "A"], subset=r.subset) for r in benchmark.rows]
    summary = summarise(benchmark, rows, seed=0, resamples=50)
    text = to_text(summary, 80)
    assert max(map(len, text.splitlines())) <= 80
    if name == "rmbench":
        assert {e["value"] for e in summary["rmbench"]["figures"].values()} == {1.0}
        assert "RM-Bench (not the whole set)" in text
        assert "rejected markdown" in text
    else:
        assert summary["ppe"]["average"]["value"] == 1.0
        assert "PPE correctness" in text


def test_ppe_correctness_is_the_mean_of_its_sets_not_of_rows() -> None:
    benchmark = load_benchmark(f"ppe_correctness={FIXTURES / 'ppe_correctness'}")
    right = {"MMLU-Pro": (1, 4), "MATH": (3, 3), "GPQA": (0, 2), "MBPP-Plus": (1, 1), "IFEval": (2, 5)}
    rows = [
        outcome(f"{s}{i}", "A", "A" if i < k else "B", "B" if i < k else "A", subset=s)
        for s, (k, n) in right.items()
        for i in range(n)
    ]
    found = summarise(benchmark, rows, seed=0, resamples=50)["ppe"]["average"]
    assert found["value"] == pytest.approx(sum(k / n for k, n in right.values()) / 5)
    assert found["n"] == 15
