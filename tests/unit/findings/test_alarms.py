"""Made-up runs, one for each alarm, each beside a healthy one; and the real run that a shortcut fooled."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from ray_app.findings.alarms import Evidence, alarms_of, as_rows
from ray_app.findings.facts import (
    ExplanationFacts,
    PairFacts,
    Share,
    VerdictFacts,
    explanation_facts,
    pair_facts,
    verdict_facts,
)
from ray_app.findings.settings import AlarmSettings

LIMITS = AlarmSettings()


def share(percent: int, of: int = 100) -> Share:
    return Share(of, percent * of // 100, ["first", "second"])


def figure(value: float, low: float | None = None, n: int = 200) -> dict[str, Any]:
    return {"value": value, "n": n, "low": value - 0.05 if low is None else low, "high": value + 0.05}


def line(stage: str, iteration: int | None, rows: int = 100, **extra: Any) -> dict[str, Any]:
    return {"stage": stage, "iteration": iteration, "rows_out": rows, "extra": extra}


def evaluated(name: str, iteration: int = 1, change: Any = None, **headline: Any) -> dict[str, Any]:
    return line("evaluation", iteration, set=name, headline=headline, change=change)


def change(difference: float) -> dict[str, Any]:
    return {"difference": figure(difference), "significant": True, "n": 200}


HEALTHY_PAIRS = PairFacts(share(2), share(2), share(1), share(52), share(48))
HEALTHY = Evidence(
    metrics=[
        line("instructions", None),
        line("train_set", 1, tried=100, keep_rate=0.7),
        line("train_set", 2, tried=100, keep_rate=0.75),
        evaluated("heldout", accuracy=figure(0.9), instruction_sensitivity=figure(0.95)),
        evaluated("test", accuracy=figure(0.7)),
    ],
    pairs={None: HEALTHY_PAIRS},
    explanations={1: ExplanationFacts(share(5), 12.0, 0.9, 95, "b is right", ["x"])},
    judgments={1: VerdictFacts(share(3), share(50))},
    votes={(1, "test"): VerdictFacts(share(0), share(55))},
)


def pairs(**changes: Share) -> Evidence:
    return dataclasses.replace(HEALTHY, pairs={None: dataclasses.replace(HEALTHY_PAIRS, **changes)})


def metrics(*lines: dict[str, Any]) -> Evidence:
    return dataclasses.replace(HEALTHY, metrics=[*HEALTHY.metrics, *lines])


BARE = ExplanationFacts(share(60), 0.0, 0.9, 40)
SAME = ExplanationFacts(share(5), 3.0, 0.1, 95, "your final verdict is", ["p1/chosen_first/0/1"])
MADE_UP = {
    "shortcut_length": pairs(chosen_longer=share(80), chosen_shorter=share(20)),
    "meta_talk": pairs(meta_talk=share(33)),
    "refusals": pairs(refusals=share(20)),
    "near_copies": pairs(near_copies=share(10)),
    "unparsed_judgments": dataclasses.replace(HEALTHY, judgments={1: VerdictFacts(share(40), share(50))}),
    "keep_rate_low": metrics(line("train_set", 3, tried=100, keep_rate=0.2)),
    "keep_rate_falls": metrics(line("train_set", 3, tried=100, keep_rate=0.6)),
    "bare_verdicts": dataclasses.replace(HEALTHY, explanations={1: BARE}),
    "few_phrasings": dataclasses.replace(HEALTHY, explanations={1: SAME}),
    "unparsed_verdicts": dataclasses.replace(HEALTHY, votes={(1, "test"): VerdictFacts(share(30), share(50))}),
    "position_bias": dataclasses.replace(HEALTHY, votes={(1, "test"): VerdictFacts(share(0), share(20))}),
    "shortcut_instruction": metrics(evaluated("heldout", 2, instruction_sensitivity=figure(0.4))),
    "shortcut_words": metrics(
        evaluated(
            "heldout", 2, accuracy=figure(0.9), overlap_baseline=figure(0.95), beyond_overlap=figure(-0.05, -0.1)
        ),
        evaluated("test", 2, accuracy=figure(0.8, 0.75)),
    ),
    "synthetic_only": metrics(
        evaluated("heldout", 2, accuracy=figure(0.92)), evaluated("test", 2, accuracy=figure(0.55, 0.51))
    ),
    "validation_falls": metrics(
        evaluated("validation", 2, change(-0.1), accuracy=figure(0.6)),
        evaluated("heldout", 2, change(0.1), accuracy=figure(0.9)),
        evaluated("test", 2, accuracy=figure(0.7)),
    ),
    "benchmark_overlap": dataclasses.replace(HEALTHY, late_overlap={"rewardbench": 5}),
}


def names(evidence: Evidence, limits: AlarmSettings = LIMITS) -> set[str]:
    return {alarm.name for alarm in alarms_of(evidence, limits)}


def test_a_healthy_run_raises_none() -> None:
    assert alarms_of(HEALTHY, LIMITS) == []


@pytest.mark.parametrize("name", MADE_UP)
def test_each_alarm_has_its_run(name: str) -> None:
    found = {alarm.name: alarm for alarm in alarms_of(MADE_UP[name], LIMITS)}
    expected = {name, "keep_rate_falls"} if name == "keep_rate_low" else {name}
    assert set(found) == expected
    assert found[name].message
    assert found[name].advice
    assert "{" not in found[name].message
    json.dumps(as_rows(list(found.values())), allow_nan=False)


@pytest.mark.parametrize("name", [name for name in MADE_UP if name not in ("keep_rate_falls", "validation_falls")])
def test_few_rows_raise_none(name: str) -> None:
    assert names(MADE_UP[name], LIMITS.model_copy(update={"min_rows": 1000})) == set()


@pytest.mark.parametrize(
    ("name", "limit"),
    [
        ("synthetic_only", {"synthetic_from": 0.9}),  # held-out pairs are right in 92 %, surely in fewer than 90
        ("synthetic_only", {"synthetic_only": 0.02}),  # the best other set is surely one point above chance, of 42
        ("validation_falls", {"validation_falls": 0.11}),  # it fell by ten points
    ],
)
def test_thresholds_of_what_is_compared(name: str, limit: dict[str, float]) -> None:
    assert name in names(MADE_UP[name])
    assert name not in names(MADE_UP[name], LIMITS.model_copy(update=limit))


def test_every_alarm_is_tried() -> None:
    source = Path(alarms_of.__code__.co_filename).read_text()
    assert {name for name in MADE_UP if f'"{name}"' in source} == set(MADE_UP)
    assert set(AlarmSettings.model_fields) - {"on_alarm", "min_rows"} == {
        *("sensitivity", "longer", "words", "meta_talk", "refusals", "near_copies", "keep_rate", "keep_rate_fall"),
        *("first_position", "unparsed", "bare_verdicts", "distinct", "overlap"),
        *("synthetic_from", "synthetic_only", "validation_falls"),
    }


def test_rows_are_named_where_a_table_has_them() -> None:
    (alarm,) = alarms_of(MADE_UP["meta_talk"], LIMITS)
    assert (alarm.rows, alarm.value, alarm.limit, alarm.n, alarm.iteration) == (
        ("first", "second"),
        0.33,
        0.1,
        100,
        None,
    )


def test_fewer_words_of_the_instruction_are_a_shortcut_too() -> None:
    def found(judge: float, words: float) -> list[str]:
        beyond = figure(judge - words, judge - words - 0.04)
        heldout = evaluated("heldout", 2, accuracy=figure(judge), overlap_baseline=figure(words), beyond_overlap=beyond)
        return [alarm.message for alarm in alarms_of(metrics(heldout), LIMITS) if alarm.name == "shortcut_words"]

    assert ["with fewer of the" in message for message in found(0.9, 0.05)] == [True]
    assert ["with more of the" in message for message in found(0.9, 0.95)] == [True]
    assert not found(0.95, 0.15), "surely more than 85 %"
    assert not found(0.95, 0.85)
    assert not found(0.9, 0.5)


def test_the_best_of_many_sets_does_not_speak_for_the_others() -> None:
    """They weigh by their rows: 40 of 640 are right in 75 %, the others by chance."""
    small, large = (
        {"value": 0.75, "low": 0.6, "high": 0.87, "n": 40},
        {"value": 0.5, "low": 0.45, "high": 0.55, "n": 300},
    )
    others = [evaluated(f"test {n}", 2, accuracy=share) for n, share in enumerate((small, large, large))]
    heldout = evaluated("heldout", 2, accuracy=figure(0.92))
    (alarm,) = alarms_of(metrics(heldout, *others), LIMITS)
    # 0.516 by the rows; below it √((40 · 0.15)² + 2 · (300 · 0.05)²) / 640 = 0.034
    assert "on the 3 other sets together not surely more than by chance (52%, at least 48%)" in alarm.message
    assert names(metrics(heldout, others[0])) == set()


def test_best_of_four_is_not_held_against_one_half() -> None:
    sets = (
        evaluated("heldout", 2, accuracy=figure(0.92)),
        evaluated("rb2", 2, accuracy=figure(0.45), unparsed_rate=figure(0)),
    )
    assert names(metrics(*sets)) == set()


def test_another_first_judge_is_not_compared_with_the_seed() -> None:
    falls = [line("train_set", 1, tried=100, keep_rate=0.9), line("train_set", 2, tried=100, keep_rate=0.5)]
    assert names(Evidence(falls)) == {"keep_rate_falls"}
    assert names(Evidence(falls, another_first_judge=True)) == set()


def test_the_rows_of_a_bias_are_those_that_show_it() -> None:
    votes = verdict_facts(
        {"id": str(i), "order": "ab", "sample": 0, "verdict": "A" if i < 5 else "B"} for i in range(50)
    )
    (alarm,) = alarms_of(Evidence([evaluated("test", accuracy=figure(0.7))], votes={(1, "test"): votes}), LIMITS)
    assert alarm.name == "position_bias"
    assert alarm.rows[0] == "5/ab/0"


def test_the_seed_is_not_blamed() -> None:
    seed = evaluated("heldout", 0, accuracy=figure(0.1), instruction_sensitivity=figure(0.1))
    assert names(metrics(seed)) == set()


# The real run that a shortcut fooled: as it is committed, without the texts of its data; and as it was.
COMMITTED = Path(__file__).resolve().parents[2] / "fixtures" / "h100_modified"
EVIDENCE = Path(os.environ.get("STE_EVIDENCE", Path(__file__).resolve().parents[4] / "shared" / "evidence"))


def real_run(run: Path) -> Evidence:
    def rows(folder: str) -> list[dict[str, Any]]:
        return [
            row for file in sorted((run / folder).glob("shard-*.parquet")) for row in pq.read_table(file).to_pylist()
        ]

    return Evidence(
        [json.loads(text) for text in (run / "metrics.jsonl").read_text().splitlines()],
        pairs={None: pair_facts(rows("pairs"))},
        explanations={i: explanation_facts(rows(f"iter_0{i}/train_set")) for i in (1, 3)},
        judgments={i: verdict_facts(rows(f"iter_0{i}/judgments")) for i in (1, 3)},
    )


def test_the_real_run_that_a_shortcut_fooled_is_caught() -> None:
    found = names(real_run(COMMITTED))
    assert {"shortcut_length", "meta_talk", "bare_verdicts", "synthetic_only"} <= found


@pytest.mark.skipif(not EVIDENCE.is_dir(), reason="STE_EVIDENCE names no folder with the real run")
def test_what_is_committed_of_the_real_run_raises_what_the_run_raises() -> None:
    as_it_was, committed = (
        [dataclasses.replace(alarm, message="") for alarm in alarms_of(real_run(run), LIMITS)]
        for run in (EVIDENCE / "h100-modified", COMMITTED)
    )
    assert as_it_was == committed
