"""Whether a run has learned something, in a sentence that its figures carry."""

from __future__ import annotations

from typing import Any

from ray_app.findings.verdict import sentences


def figure(value: float, low: float, high: float, n: int = 300) -> dict[str, Any]:
    return {"value": value, "n": n, "low": low, "high": high}


def line(
    name: str, iteration: int, value: float, low: float, high: float, longer: float | None = None
) -> dict[str, Any]:
    headline = {"accuracy": figure(value, low, high)}
    headline |= {} if longer is None else {"length_baseline": figure(longer, longer, longer)}
    return {"stage": "evaluation", "iteration": iteration, "extra": {"set": name, "headline": headline}}


SEED = [line("validation", 0, 0.5, 0.45, 0.55), line("heldout", 0, 0.4, 0.35, 0.45)]
HELDOUT = line("heldout", 1, 0.9, 0.85, 0.95)


def test_better_is_said_only_of_what_is() -> None:
    good, *others = sentences([*SEED, line("validation", 1, 0.7, 0.65, 0.75, 0.5), HELDOUT], [])
    assert good == (
        "After 1 iteration the judge is better than chance and than always the longer response on validation "
        "(at best 70 %)."
    )
    assert others[0] == "validation: 70.0 % [65–75] of 300, the seed 50.0 % [45–55] of 300; always the longer: 50 %."
    assert others[1].startswith("held-out synthetic pairs: 90.0 %")


def test_always_the_longer_may_be_as_good() -> None:
    (first, *_) = sentences([*SEED, line("validation", 1, 0.7, 0.65, 0.75, 0.72), HELDOUT], [])
    assert "on no set with gold labels clearly better than chance and than always the longer" in first


def test_chance_of_best_of_four_is_a_quarter() -> None:
    best_of = line("rewardbench2", 1, 0.45, 0.43, 0.47)
    best_of["extra"]["headline"]["unparsed_rate"] = figure(0, 0, 0)
    (first, *_) = sentences([*SEED, best_of, HELDOUT], [])
    assert first == "After 1 iteration the judge is better than chance on rewardbench2 (at best 45 %)."


def test_what_was_not_measured_is_not_claimed() -> None:
    (first, *_) = sentences([*SEED, line("validation", 1, 0.7, 0.65, 0.75), HELDOUT], [])
    assert "longer" not in first


def test_synthetic_pairs_alone_say_nothing() -> None:
    (first, *_) = sentences([SEED[1], HELDOUT], [])
    assert "on its own synthetic pairs alone: that says nothing" in first


def test_a_set_that_selected_the_checkpoint_is_marked() -> None:
    chosen = {"stage": "training", "iteration": 1, "extra": {"candidates": [{"step": 1}, {"step": 2}]}}
    told = sentences([*SEED, chosen, line("validation", 1, 0.52, 0.47, 0.57, 0.5)], [])
    assert told[1].endswith("(not clearly better); always the longer: 50 %; the checkpoint was selected on it, so its "
                            "figure flatters.")  # fmt: skip


def test_a_seed_that_names_no_response_is_told() -> None:
    """Its score is low for its form: what an iteration adds to it is not all judgment."""
    silent = line("test", 0, 0.03, 0.02, 0.04)
    silent["extra"]["headline"]["unparsed_rate"] = figure(0.95, 0.9, 1)
    told = sentences([silent, line("test", 1, 0.55, 0.53, 0.57)], [])
    assert told[1].endswith("the seed 3.0 % [2–4] of 300, 95 % of its answers without a verdict.")
    silent["extra"]["headline"]["unparsed_rate"] = figure(0.02, 0, 0.1)
    assert "without a verdict" not in sentences([silent, line("test", 1, 0.55, 0.53, 0.57)], [])[1]


def test_alarms_and_an_untrained_run() -> None:
    told = sentences([*SEED, HELDOUT], [{"name": "meta_talk"}, {"name": "meta_talk"}])
    assert told[1] == "Distrust it for: meta talk (the alarms say why)."
    assert sentences(SEED, []) == ["Nothing is trained and evaluated yet: there is nothing to say about learning."]
