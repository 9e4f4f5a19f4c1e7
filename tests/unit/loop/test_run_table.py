"""The tables at the end of a run, from lines of metrics.jsonl."""

from __future__ import annotations

import io
from typing import Any

from rich.console import Console

from ray_app.loop.run_table import iteration_rows, show, show_alarms


def line(stage: str, iteration: int | None, **extra: Any) -> dict[str, Any]:
    return {
        "stage": stage,
        "iteration": iteration,
        "seconds": 1.0,
        "rows_in": 4,
        "rows_out": 3,
        "quarantined": {"too_long": 1},
        "prompt_tokens": 10,
        "completion_tokens": 5,
        "extra": extra,
    }


def figure(value: float | None, low: float | None = None, high: float | None = None) -> dict[str, Any]:
    return {"value": value, "n": 4, "low": low, "high": high}


def shown(lines: list[dict[str, Any]]) -> str:
    buffer = io.StringIO()
    show(lines, Console(file=buffer, width=80, no_color=True))
    return buffer.getvalue()


HEADLINE = {
    "accuracy": figure(0.5, 0.4, 0.6),
    "position_consistent_accuracy": figure(0.25),
    "unparsed_rate": figure(0.125),
}
CONTROLS = {
    "mirrored_accuracy": figure(0.92),
    "instruction_sensitivity": figure(0.85),
    "length_baseline": figure(0.7),
    "overlap_baseline": figure(0.97),
}
CHANGE = {"difference": figure(0.25, 0.05, 0.4), "mcnemar": {"a_better": 1, "b_better": 9, "p_value": 0.021}}


def test_one_line_an_iteration_and_set() -> None:
    text = shown(
        [
            line("pairs", None),
            line("evaluation", 0, set="validation", headline=HEADLINE),
            line("judgments", 1, unparsed_rate=0.1),
            line("train_set", 1, rows=6, pairs=4, keep_rate=0.75, pass_rate=0.5),
            line("evaluation", 1, set="validation", headline=HEADLINE | CONTROLS, change=CHANGE),
            line("evaluation", 1, set="test", headline=HEADLINE),
        ]
    )
    rows = [" ".join(row.split()) for row in text.splitlines()]
    assert "0 - - - - validation 50.0 [40–60] 4 25 12 -" in rows
    assert "1 4 50 75 10 validation 50.0 [40–60] 4 25 12 70" in rows
    assert "test 50.0 [40–60] 4 25 12 -" in rows
    assert "1 validation 92.0 4 85.0 4 97" in rows
    assert "1 validation +25.0 [+5 – +40] 9 : 1 0.021" in rows
    assert "1 eval test 4 3 1 10 5 1" in rows
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text, "80 columns are enough"


def test_accuracy_by_similarity_has_a_table_of_its_own() -> None:
    thirds = {f"accuracy_{third}_similar": figure(value, 0.4, 1.0) for third, value in (("least", 0.9), ("most", 0.5))}
    lines = [
        line("evaluation", 1, set="validation", headline=HEADLINE),
        line("evaluation", 1, set="heldout", headline=HEADLINE | thirds),
        line("evaluation", 2, set="heldout", headline=None),
    ]
    text = shown(lines)
    rows = [" ".join(row.split()) for row in text.splitlines()]
    assert "iter set least [95 %] middle [95 %] most [95 %]" in rows
    assert "1 heldout 90.0 [40–100] - 50.0 [40–100]" in rows
    assert max(map(len, text.splitlines())) <= 80
    assert "similarity" not in shown(lines[:1])


def test_figures_that_flatter_are_marked() -> None:
    lines = [
        line("pairs", None),
        line("training", 1, candidates=[{"step": 1}, {"step": 2}]),
        line("evaluation", 1, set="validation", headline=HEADLINE),
        line("evaluation", 1, set="test", headline=HEADLINE),
        line("train_set", 2, rows=6, pairs=4, keep_rate=0.75, pass_rate=0.5),
    ]
    text = " ".join(shown(lines).split())
    assert "validation* 50.0" in text
    assert " test 50.0" in text
    assert "* the checkpoint was selected on this set: its figure flatters" in text
    assert "pass and keep from iteration 2 on: of pairs that the judge was trained on" in text
    one = " ".join(shown([line("training", 1, candidates=[{"step": 2}]), *lines[2:4]]).split())
    assert "flatters" not in one
    fresh = [line("pairs", 1), line("pairs", 2), lines[4]]
    assert "trained on" not in shown(fresh)


def test_long_names_and_full_figures_fit_into_80_columns() -> None:
    full = {name: {**figure(1.0, 1.0, 1.0), "n": 20582} for name in HEADLINE | CONTROLS}
    text = shown(
        [
            line("judgments", 1, unparsed_rate=1.0),
            line("train_set", 1, rows=6, pairs=20582, keep_rate=1.0, pass_rate=1.0),
            line("evaluation", 1, set="rewardbench", headline=full),
        ]
    )
    wanted = "1 20,582 100 100 100 rewardbench 100.0 [100–100] 20,582 100 100 100"
    assert wanted in [" ".join(row.split()) for row in text.splitlines()]
    assert "…" not in text


def test_what_was_trained_on_has_a_table() -> None:
    said = {"explanation_words_median": 12.0, "bare_verdicts": 0.25, "distinct_explanations": 0.9}
    text = shown([line("train_set", 1, rows=6, pairs=4, trained_by_letter={"A": 3, "B": 3}, **said)])
    assert "1 6 3 3 1 12 25.0 90.0" in [" ".join(row.split()) for row in text.splitlines()]
    old = shown([line("train_set", 1, rows=6, pairs=4)])
    assert "Training sets" not in old, "a run of before has no such figures"


def test_no_change_no_table_of_changes() -> None:
    text = shown([line("evaluation", 0, set="validation", headline=HEADLINE, change=None)])
    assert "against the iteration before" not in text


def test_what_of_a_change_is_form_is_said() -> None:
    """A seed that gives no verdict is wrong by that alone: what it gains by giving one is no judgment."""
    change = {"difference": figure(0.5, 0.3, 0.7), "mcnemar": {"b_better": 12, "a_better": 0, "p_value": 0.0005}}
    silent, spoken = ({**HEADLINE, "unparsed_rate": figure(rate)} for rate in (0.98, 0.0))
    seed = line("evaluation", 0, set="test", headline=silent)
    text = shown([seed, line("evaluation", 1, set="test", headline=spoken, change=change)])
    assert "part is form: " in text
    assert "1 test 98 to 0 (+49.0 points)" in " ".join(text.split())
    text = shown([seed, line("evaluation", 1, set="test", headline=silent, change=change)])
    assert "form" not in text


def test_a_change_of_a_few_points_may_be_form_as_well() -> None:
    """The committed run of an H100: of 9.5 points a coin on the answers that have a verdict now would give 4.3."""
    change = {"difference": figure(0.095, 0.03, 0.16), "mcnemar": {"b_better": 30, "a_better": 11, "p_value": 0.0025}}
    before, now = ({**HEADLINE, "unparsed_rate": figure(rate)} for rate in (0.146, 0.06))
    seed = line("evaluation", 0, set="heldout", headline=before)
    text = shown([seed, line("evaluation", 1, set="heldout", headline=now, change=change)])
    assert "1 heldout 15 to 6 (+4.3 points)" in " ".join(text.split())


def test_what_is_said_in_an_evaluation_has_a_table() -> None:
    said = {
        "explanation_words_median": 9,
        "bare_verdicts": 0.1,
        "distinct_explanations": 0.8,
        "telling_explanations": 0.5,
        "contradicting_explanations": 0.75,
    }
    text = shown([line("evaluation", 1, set="test", headline=HEADLINE, change=None, explanations=said)])
    assert "1 test 9 10.0 80.0 50.0 75.0" in [" ".join(row.split()) for row in text.splitlines()]


def test_votes_that_stopped_early_have_no_single_sample_accuracy() -> None:
    headline = {"vote_accuracy": figure(0.75, 0.5, 1.0)}
    assert "75.0 [50–100]" in shown([line("evaluation", 0, set="test", headline=headline)])


def test_nothing_that_was_judged_leaves_a_dash() -> None:
    for headline in (None, {}, {"accuracy": figure(None)}):
        assert iteration_rows([line("evaluation", 0, set="test", headline=headline)])[0]["sets"] == {"test": headline}
        assert shown([line("evaluation", 0, set="test", headline=headline)])


def test_the_first_judge_has_a_line_of_its_own() -> None:
    """Where it is another model than the seed: the table starts with what judged the first iteration."""
    best_of = {"accuracy": figure(0.75), "unparsed_rate": figure(0.0)}
    lines = [
        line("evaluation", 0, set="validation", headline={**HEADLINE, "accuracy": figure(0.1)}),
        line("first_judge_evaluation", 0, set="validation", headline=HEADLINE),
        line("first_judge_evaluation", 0, set="rewardbench2", headline=best_of),
    ]
    rows = [" ".join(row.split()) for row in shown(lines).splitlines()]
    assert "Iterations (first is the first judge, 0 is the seed model; %)" in rows
    table = [row for row in rows if row.startswith(("first -", "0 -", "rewardbench2"))]
    assert table[:3] == [
        "first - - - - validation 50.0 [40–60] 4 25 12 -",
        "rewardbench2 75.0 4 - 0 -",
        "0 - - - - validation 10.0 4 25 12 -",
    ]
    assert [row["iteration"] for row in iteration_rows(lines)] == ["first", 0]


def test_the_seed_with_another_prompt_has_a_line_of_its_own() -> None:
    """Behind the seed's own, named below the table: prompts have long names, and 80 columns are few."""
    better = {**HEADLINE, "accuracy": figure(0.6)}
    lines = [
        line("evaluation", 0, set="validation", headline=HEADLINE),
        line("baseline_evaluation", 0, set="validation", headline=better, prompt="judge_rubric"),
        line("baseline_evaluation", 0, set="test", headline=better, prompt="judge_rubric"),
        line("baseline_evaluation", 0, set="validation", headline=HEADLINE, prompt="judge_plan"),
        line("evaluation", 1, set="validation", headline=HEADLINE),
    ]
    rows = [" ".join(row.split()) for row in shown(lines).splitlines()]
    table = [row for row in rows if row.startswith(("0", "1", "test"))]
    assert table[:5] == [
        "0 - - - - validation 50.0 [40–60] 4 25 12 -",
        "0p1 - - - - validation 60.0 4 25 12 -",
        "test 60.0 4 25 12 -",
        "0p2 - - - - validation 50.0 [40–60] 4 25 12 -",
        "1 - - - - validation 50.0 [40–60] 4 25 12 -",
    ]
    assert "0p1: the seed model with the prompt judge_rubric" in rows
    assert "0p2: the seed model with the prompt judge_plan" in rows
    assert "0p1 eval test 4 3 1 10 5 1" in rows
    assert [row["iteration"] for row in iteration_rows(lines)] == [0, "0p1", "0p2", 1]


def test_alarms_fit_into_80_columns() -> None:
    buffer = io.StringIO()
    alarm = {"name": "few_phrasings", "iteration": 3, "message": "only 15% of the explanations differ; " * 3}
    show_alarms([{**alarm, "iteration": None}, alarm], Console(file=buffer, width=80, no_color=True))
    text = buffer.getvalue()
    assert max(map(len, text.splitlines())) <= 80
    assert "- few phrasings" in " ".join(text.split())
    assert "3 few phrasings" in " ".join(text.split())
    silent = io.StringIO()
    show_alarms([], Console(file=silent))
    assert silent.getvalue() == ""


def test_the_time_of_the_devices_is_summed_over_an_iteration() -> None:
    first = {"devices": 2, "seconds": 50.0, "busy": 80.0, "idle": {"workers start": 15.0, "other": 5.0}}
    second = {"devices": 2, "seconds": 25.0, "busy": 40.0, "idle": {"other": 10.0, "weights load": 0.2}}
    lines = [line("training", 1, device_time=first), line("evaluation", 1, set="test", headline=HEADLINE)]
    (row,) = iteration_rows([*lines, line("evaluation", 1, set="b", headline=HEADLINE, device_time=second)])
    assert row["device_time"] == {
        "total": 150.0,
        "busy": 120.0,
        "idle": {"other": 15.0, "weights load": 0.2, "workers start": 15.0},
    }
    text = shown([*lines, line("evaluation", 1, set="b", headline=HEADLINE, device_time=second)])
    assert "1 150 20 other 15, workers start 15" in " ".join(text.split())
    assert "device-seconds" not in shown([line("training", 1)])
    whole = shown([line("pairs", None, device_time=first), *lines]).splitlines()
    assert [text.split()[:3] for text in whole if text.strip()][-2:] == [["-", "100", "20"], ["1", "100", "20"]]


def test_what_verdicts_cost_is_told_of_the_last_judge() -> None:
    def judged(iteration: int, **more: float | None) -> dict[str, Any]:
        each = {"seconds": 41.6, "prompt_tokens": 1_210_000.0, "completion_tokens": 30_400.0, **more}
        return line("evaluation", iteration, set="validation", headline=HEADLINE, per_1000=each)

    text = shown([judged(0), judged(1)])
    assert "1,000 verdicts cost (last judge)" in text
    assert [row.split() for row in text.splitlines() if "1,210,000" in row] == [
        ["1", "validation", "41.6", "1,210,000", "30,400"]
    ]
    assert "price" not in text
    assert "0.0231" in shown([judged(0, price=0.0231234)])
    unknown = [line("evaluation", 0, set="validation", headline=HEADLINE, per_1000={"seconds": None, "price": None})]
    assert "price" in shown(unknown)  # its notes in the report say why there is none
