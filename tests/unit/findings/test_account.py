"""What became of rows and seconds: against the recorded run's own tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from ray_app.findings.account import duration, learned_from, left_out, spent, thrown_away, where_time_went
from ray_app.findings.run_tables import RunTables


@pytest.fixture
def tables(runs: Callable[[str], str]) -> RunTables:
    return RunTables(runs("pairwise"))


def line_of(tables: RunTables, stage: str) -> dict[str, Any]:
    return next(line for line in tables.metrics() if line["stage"] == stage)


def test_what_was_left_out_accounts_for_every_unit(tables: RunTables) -> None:
    judged = list(tables.judgments(1))
    units = {(row["pair_id"], row["order"]) for row in judged}
    right = {(row["pair_id"], row["order"]) for row in judged if row["kept"]}
    found = dict(left_out(line_of(tables, "train_set")))
    trained = len(list(tables.train_set(1)))
    assert found["never judged right"] == len(units) - len(right) > 0
    assert trained + sum(found.values()) == len(units)
    unparsed = sum(row["verdict"] is None for row in judged)
    assert left_out(line_of(tables, "judgments")) == [("without a verdict", unparsed)]


def test_quarantined_rows_are_named_most_first() -> None:
    line = {"stage": "pairs", "quarantined": {"refused": 2, "too_similar": 7}, "extra": {}}
    assert left_out(line) == [("too similar", 7), ("refused", 2)]


def test_what_it_learned_from(tables: RunTables) -> None:
    rows = list(tables.train_set(1))
    pairs = {row["pair_id"] for row in rows}
    (told,) = learned_from(tables.metrics())
    drawn = len(list(tables.judgments(1)))
    assert told.startswith(
        f"Iteration 1: {len(rows)} training rows from {len(pairs)} pairs, chosen out of {drawn} judgments drawn"
    )
    assert learned_from([]) == []
    cut = {"stage": "training", "iteration": 1, "extra": {"steps": 4, "cut_from": 6}}
    (told,) = learned_from([*(line for line in tables.metrics() if line["stage"] == "train_set"), cut])
    assert told.endswith("; train.max_steps ended training after 4 of 6 steps.")


def test_a_second_training_is_told_apart(then_dpo: str) -> None:
    first, second = learned_from(RunTables(then_dpo).metrics())
    assert first.startswith("Iteration 1: 18 training rows from")
    assert second.startswith("Iteration 1, DPO: 10 training rows (each a right and a wrong judgment) from 11 pairs")
    assert "DPO judgments" in [row["stage"] for row in spent(RunTables(then_dpo).metrics())]


def test_what_was_thrown_away_is_said(then_dpo: str) -> None:
    """Of preferences, rows that lack a wrong judgment too: every unit is accounted for."""
    first, second = thrown_away(RunTables(then_dpo).metrics())
    assert first == (
        "Iteration 1: of 22 judged (pair, order)s, 18 became training rows. Left out: never judged right 2 (9 %), "
        "to balance A and B 2 (9 %)."
    )
    assert second == (
        "Iteration 1, DPO: of 22 judged (pair, order)s, 10 became training rows. Left out: no wrong judgment to set "
        "beside 8 (36 %), never judged right 3 (14 %), to balance A and B 1 (5 %)."
    )
    pairs = {"stage": "pairs", "iteration": None, "rows_out": 3, "quarantined": {"too_similar": 7}, "extra": {}}
    assert thrown_away([pairs]) == ["7 rows gave no pair, and 3 pairs were made. Most were lost as: too similar 7."]
    assert thrown_away([{**pairs, "rows_in": 10}])[0].endswith("Most were lost as: too similar 7 (70 %).")


def test_where_the_time_went_is_said() -> None:
    account = {"devices": 2, "seconds": 10.0, "busy": 15.0, "idle": {"engines start": 4.0, "other": 1.0}}
    line = {"stage": "training", "iteration": 1, "seconds": 9.0, "completion_tokens": 0}
    told = where_time_went([{**line, "extra": {"device_time": account}}, {**line, "seconds": 1.0, "extra": {}}])
    assert told == [
        "The run took 10 s, as far as its stages are done. The largest part went into training: 10 s (100 %).",
        "The devices (GPUs, or the machine) did no work for 25 % of their time, mostly for: engines start (4 s) and "
        "other (1 s), in device-seconds.",
    ]
    assert where_time_went([]) == []


def test_time_is_summed_by_stage(tables: RunTables) -> None:
    sums: Counter[str] = Counter()
    for line in tables.metrics():
        sums[line["stage"].replace("_", " ")] += line["seconds"]
    rows = spent(tables.metrics())
    assert [row["stage"] for row in rows] == [stage for stage, _ in sums.most_common()]
    assert sum(row["share"] for row in rows) == pytest.approx(1)
    assert rows[0]["share"] == pytest.approx(max(sums.values()) / sum(sums.values()))
    assert spent([]) == []


def test_what_ran_side_by_side_is_one_part_of_the_time() -> None:
    """Ten minutes of the clock in which two stages worked are no twenty."""

    def made(stage: str, seconds: float, account: float | None, **extra: Any) -> dict[str, Any]:
        told = {} if account is None else {"device_time": {"devices": 2, "seconds": account, "busy": 1.0, "idle": {}}}
        return {"stage": stage, "iteration": 1, "seconds": seconds, "completion_tokens": 5, "extra": {**extra, **told}}

    lines = [
        made("pairs", 590.0, 600.0, side_by_side=True, weights_seconds=30.0),
        made("judgments", 600.0, None, side_by_side=True),
        made("judgments", 90.0, 100.0),
        made("evaluation", 50.0, 100.0),
        made("evaluation", 50.0, None),
    ]
    found = {row["stage"]: (row["seconds"], row["tokens"]) for row in spent(lines)}
    assert found == {"pairs, with judgments beside them": (600, 10), "judgments": (100, 5), "evaluation": (100, 10)}
    first, starts, _ = where_time_went(lines)
    assert first.endswith("into pairs, with judgments beside them: 10 min (75 %).")
    assert starts == "Engines started, or took other weights, for 30 s of it."


@pytest.mark.parametrize(("seconds", "told"), [(0.4, "0 s"), (119, "119 s"), (300, "5 min"), (9000, "2.5 h")])
def test_durations(seconds: float, told: str) -> None:
    assert duration(seconds) == told
