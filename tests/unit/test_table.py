"""The table of a run: from lines of metrics.jsonl, whatever an evaluation could measure."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from ray_app.benchmarks import Benchmark
from ray_app.benchmarks.base import Faulty
from ray_app.metrics.outcome import outcomes_of
from ray_app.metrics.summary import summarise
from ray_app.schema import AB, BA, PairwiseRow
from ray_app.stages.evaluation import headline
from ray_app.table import iteration_rows, show
from ray_app.verdict import Count


def line(stage: str, iteration: int | None, **extra: Any) -> dict[str, Any]:
    return {
        "stage": stage,
        "iteration": iteration,
        "rows_in": 12,
        "rows_out": 10,
        "quarantined": {"duplicate": 2},
        "prompt_tokens": 30,
        "completion_tokens": 40,
        "seconds": 5.0,
        "extra": extra,
    }


def shown(*lines: dict[str, Any]) -> str:
    out = io.StringIO()
    show(list(lines), Console(file=out, width=80, no_color=True))
    return out.getvalue()


def benchmark(rows: int, faulty: int = 0) -> Benchmark:
    return Benchmark(
        "set",
        [PairwiseRow(f"r{i}", "", f"q{i}", "long answer", "short", "A", f"g{i}") for i in range(rows)],
        rows + faulty,
        tuple(Faulty(f"f{i}", "", f"gf{i}", "bad_label", "") for i in range(faulty)),
    )


def figures(made: Benchmark, tallies: dict[str, dict[str, Count]], votes: int) -> dict[str, Any]:
    lost = [row.id for row in made.rows if row.id not in tallies]
    return headline(summarise(made, outcomes_of(made, tallies, votes=votes, quarantined=lost), seed=0, resamples=50))


RIGHT = {AB: Count(3), BA: Count(0, 3)}


@pytest.mark.parametrize(
    ("made", "tallies", "votes", "wanted"),
    [
        pytest.param(benchmark(3), {}, 1, "0.0 [0–0]", id="every row quarantined"),
        pytest.param(benchmark(3, 2), {}, 4, "0.0 [0–0]", id="every row quarantined, votes"),
        pytest.param(benchmark(3), {f"r{i}": RIGHT for i in range(3)}, 5, "100.0 [100–100]", id="stopped early"),
        pytest.param(benchmark(3), {"r0": RIGHT}, 5, "33.3 [0–", id="stopped early, two rows quarantined"),
        pytest.param(benchmark(3), {f"r{i}": RIGHT for i in range(3)}, 3, "100.0 [100–100]", id="all votes"),
        pytest.param(benchmark(1), {"r0": RIGHT}, 3, "100.0  ", id="one row has no interval"),
        pytest.param(
            benchmark(2),
            {f"r{i}": {AB: Count(0, 0, 4), BA: Count(0, 0, 4)} for i in (0, 1)},
            4,
            "0.0 [0–0]",
            id="unparsed",
        ),
    ],
)
def test_a_line_for_every_headline(
    made: Benchmark, tallies: dict[str, dict[str, Count]], votes: int, wanted: str
) -> None:
    found = figures(made, tallies, votes)
    assert found["unparsed_rate"]["n"]
    assert wanted in shown(line("evaluation", 1, set="validation", headline=found))


def test_votes_that_stopped_early_have_no_accuracy_of_one_sample() -> None:
    made = benchmark(3)
    found = figures(made, {f"r{i}": RIGHT for i in range(3)}, 5)
    assert "accuracy" not in found
    assert found["vote_accuracy"]["value"] == 1
    assert figures(made, {f"r{i}": RIGHT for i in range(3)}, 3)["accuracy"]["value"] == 1


def test_an_empty_set_and_an_unknown_headline_show_dashes() -> None:
    for empty in (None, {}, {"first_position_rate": {"value": 1.0, "low": 1.0, "high": 1.0, "n": 1}}):
        assert shown(line("evaluation", 0, set="heldout", headline=empty)).split("heldout")[1].split()[:3] == ["-"] * 3


def test_rows_are_grouped_by_iteration() -> None:
    rows = iteration_rows(
        [
            line("pairs", None),
            line("evaluation", 0, set="validation", headline=None),
            line("train_set", 1, rows=8, keep_rate=0.5, pass_rate=0.25),
            line("judgments", 1, unparsed_rate=0.125),
            line("evaluation", 1, set="validation", headline=None),
            line("evaluation", 1, set="heldout", headline=None),
        ]
    )
    assert [row["iteration"] for row in rows] == [0, 1]
    assert (rows[1]["keep_rate"], rows[1]["rows"], rows[1]["unparsed_rate"]) == (0.5, 8, 0.125)
    assert list(rows[1]["sets"]) == ["validation", "heldout"]
    assert (rows[1]["tokens"], rows[1]["seconds"]) == (160, 20.0)


def test_stages_are_listed_in_the_order_of_the_loop() -> None:
    text = shown(
        line("evaluation", 0, set="validation", headline=None), line("pairs", None), line("instructions", None)
    )
    stages = text.split("Stages")[1]
    assert stages.index("instructions") < stages.index("pairs") < stages.index("eval validation")
    assert max(map(len, text.splitlines())) <= 80
