"""Whether a run has learned something, in a sentence that its figures carry."""

from __future__ import annotations

from typing import Any

from ray_app.findings.verdict import sentences, trusted


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
        "Yes: after 1 iteration the judge is better than chance and than always the longer response on validation "
        "(at best 70 %)."
    )
    assert others[0] == "validation: 70.0 % [65–75] of 300, the seed 50.0 % [45–55] of 300; always the longer: 50 %."
    assert others[1].startswith("held-out synthetic pairs: 90.0 %")


def test_always_the_longer_may_be_as_good() -> None:
    (first, *_) = sentences([*SEED, line("validation", 1, 0.7, 0.65, 0.75, 0.72), HELDOUT], [])
    assert "on no set with gold labels clearly better than chance and than always the longer" in first


def test_better_than_the_longer_is_asked_of_the_difference_on_the_same_rows() -> None:
    """60 % [53–66] lie above 52 %; the difference, which has the baseline's own chance in it, may be nothing."""
    seed = line("validation", 0, 0.4, 0.35, 0.45)
    judged = line("validation", 1, 0.6, 0.53, 0.66, 0.52)
    assert sentences([seed, judged], [])[0].startswith("A little: ")
    judged["extra"]["headline"]["beyond_longer"] = figure(0.08, -0.01, 0.17)
    first, told = sentences([seed, judged], [])
    assert first.startswith("Not shown: ")
    assert "always the longer: 52 %, on the same rows +8.0 points [-1 – +17]" in told


def test_more_words_of_the_instruction_may_be_as_good() -> None:
    """Seen on a GPU: 71 % on pairs of which always the response with more of the instruction's words gets 74."""
    seed, judged = line("validation", 0, 0.4, 0.35, 0.45), line("validation", 1, 0.71, 0.66, 0.76, 0.39)
    judged["extra"]["headline"] |= {
        "beyond_longer": figure(0.32, 0.25, 0.39),
        "overlap_baseline": figure(0.74, 0.74, 0.74),
        "beyond_overlap": figure(-0.03, -0.09, 0.03),
    }
    first, told = sentences([seed, judged], [])
    assert first == (
        "Not shown: after 1 iteration the judge is on no set with gold labels clearly better than chance and than "
        "always the longer response and than always the one with more of the instruction's words."
    )
    assert told.endswith("; more words of the instruction: 74 %, on the same rows -3.0 points [-9 – +3].")
    judged["extra"]["headline"]["beyond_overlap"] = figure(0.1, 0.05, 0.15)
    assert sentences([seed, judged], [])[0].startswith("Yes: ")


def test_few_of_many_sets_are_a_part() -> None:
    clear, others = line("clear", 1, 0.7, 0.65, 0.75), [line(f"set{i}", 1, 0.5, 0.45, 0.55) for i in range(2)]
    assert sentences([clear, others[0]], [])[0].startswith("In part: ")
    assert sentences([clear, line("clear too", 1, 0.7, 0.65, 0.75), others[0]], [])[0].startswith("Yes: ")


def test_only_sets_that_the_seed_was_worse_on_speak_for_learning() -> None:
    """Two sets are better than chance; on one of them the seed was, too."""
    before = [line("easy", 0, 0.8, 0.75, 0.85), line("new", 0, 0.5, 0.45, 0.55)]
    after = [line("easy", 1, 0.8, 0.75, 0.85), line("new", 1, 0.7, 0.65, 0.75)]
    assert sentences([*before, *after], [])[0] == (
        "In part: after 1 iteration the judge is better than chance on new (at best 70 %), on easy not clearly more "
        "than the seed (2 sets were looked at, which is allowed for)."
    )


def test_what_some_sets_have_measured_is_not_said_of_all() -> None:
    measured, older = line("a", 1, 0.5, 0.45, 0.55, 0.4), line("b", 1, 0.5, 0.45, 0.55)
    assert (
        "clearly better than chance and than always the longer response (where that was measured) (2 sets"
        in (sentences([measured, older], [])[0])
    )


def test_one_set_of_ten_is_better_by_chance() -> None:
    """Each at 2.5 %, one judge in four that learned nothing would be better somewhere; by Holm's method it is not."""
    sets = [line(f"set{i}", 1, 0.5, 0.45, 0.55) for i in range(9)]
    lucky = line("lucky", 1, 0.552, 0.502, 0.602)
    assert "better than chance on lucky" in sentences([lucky], [])[0]
    said = sentences([*sets, lucky], [])[0]
    assert said.startswith("Not shown: ")
    assert "(10 sets were looked at, which is allowed for)" in said
    clear = line("clear", 1, 0.6, 0.55, 0.65)
    assert (
        "better than chance on clear (at best 60 %), and not on the other 10 sets"
        in sentences([*sets, lucky, clear], [])[0]
    )


def test_chance_of_best_of_four_is_a_quarter() -> None:
    best_of = line("rewardbench2", 1, 0.45, 0.43, 0.47)
    best_of["extra"]["headline"]["unparsed_rate"] = figure(0, 0, 0)
    (first, *_) = sentences([*SEED, best_of, HELDOUT], [])
    assert first == "Yes: after 1 iteration the judge is better than chance on rewardbench2 (at best 45 %)."


def test_a_seed_that_was_as_good_has_taught_nothing() -> None:
    seed = line("validation", 0, 0.7, 0.65, 0.75)
    (first, *_) = sentences([seed, line("validation", 1, 0.71, 0.66, 0.76)], [])
    assert first == (
        "Not shown: after 1 iteration the judge is better than chance on validation (at best 71 %), but not clearly "
        "better there than the seed model, which was not trained."
    )


def test_the_judge_of_the_second_training_is_the_one_that_is_judged() -> None:
    """It goes on; what SFT alone gave stands beside. Until it is evaluated, the first one's figures say so."""
    sft, dpo = line("validation", 1, 0.6, 0.55, 0.65), line("validation", 1, 0.75, 0.7, 0.8)
    first, told = sentences([*SEED, sft, {**dpo, "stage": "dpo_evaluation"}], [])
    assert first.startswith("Yes: after 1 iteration the judge (SFT, then DPO) is better than chance")
    assert told == (
        "validation: 75.0 % [70–80] of 300, the seed 50.0 % [45–55] of 300; after SFT alone: 60.0 % [55–65] of 300."
    )
    (first, *_) = sentences([*SEED, sft], [], second=True)
    assert "the judge (SFT; its DPO is not evaluated yet)" in first


def test_a_small_lead_and_a_doubtful_one_are_no_plain_yes() -> None:
    """The run that a shortcut fooled was better than a coin on some sets, by a few points."""
    lines = [*SEED, line("validation", 1, 0.58, 0.56, 0.6)]
    assert sentences(lines, [])[0].startswith("A little: after 1 iteration the judge is better than chance")
    assert sentences(lines, [{"name": "synthetic_only"}])[0].startswith(
        "Doubtful: after 1 iteration the judge is better"
    )


def test_other_judges_are_named() -> None:
    first, prompted = (line("validation", 0, value, value - 0.05, value + 0.05) for value in (0.8, 0.55))
    first |= {"stage": "first_judge_evaluation", "extra": {**first["extra"], "judge": "mixtral"}}
    prompted |= {"stage": "baseline_evaluation", "extra": {**prompted["extra"], "prompt": "short"}}
    told = sentences([*SEED, first, prompted, line("validation", 1, 0.7, 0.65, 0.75)], [])[1]
    assert "; the first judge, mixtral: 80.0 % [75–85] of 300; the seed with the prompt short: 55.0 %" in told


def test_whether_it_can_be_trusted() -> None:
    exact, coarse = line("test", 1, 0.7, 0.67, 0.73, 0.5), line("validation", 1, 0.7, 0.4, 1.0, 0.5)
    told = trusted([*SEED, coarse, exact], [])
    assert told[0].startswith("No alarm was raised")
    assert told[1].endswith("on gold labels: test (n = 300), known to ± 3 points (95 % interval).")
    told = trusted([*SEED, coarse], [{"name": "meta_talk"}, {"name": "meta_talk"}])
    assert told[0].startswith("Only with care: 1 alarm was raised.")
    assert told[1].endswith("± 30 points (95 % interval): too little to tell most judges apart.")


def test_what_was_not_measured_is_not_claimed() -> None:
    (first, *_) = sentences([*SEED, line("validation", 1, 0.7, 0.65, 0.75), HELDOUT], [])
    assert "longer" not in first


def test_synthetic_pairs_alone_say_nothing() -> None:
    (first, *_) = sentences([SEED[1], HELDOUT], [])
    assert "on its own synthetic pairs alone: that says nothing" in first


def with_form(made: dict[str, Any], unparsed: float, first: float) -> dict[str, Any]:
    shares = {"unparsed_rate": figure(unparsed, 0, 1), "first_position_rate": figure(first, 0, 1)}
    made["extra"]["headline"] |= shares
    return made


def test_a_judge_that_learned_the_form_alone_is_told() -> None:
    """The seed names a response in 10 % of its answers, and is right in half of those; the judge always says B."""
    seed = with_form(line("validation", 0, 0.05, 0.03, 0.08), 0.9, 0.5)
    now = with_form(line("validation", 1, 0.5, 0.45, 0.55), 0, 0.02)
    learned, form, constant, *_ = sentences([seed, now], [])
    assert learned.startswith("Not shown")
    assert form == (
        "It learned to give a verdict at all: 90 % of the seed's answers hold none, now 0 %. Right among the verdicts "
        "that there are: validation 50 → 50 %."
    )
    assert constant.startswith("On validation nearly all its verdicts are for the response shown second")
    few = with_form(line("validation", 0, 0.01, 0, 0.02), 0.98, 0.5)
    assert sentences([few, now], [])[1].endswith("98 % of the seed's answers hold none, now 0 %.")


def test_a_judge_that_judges_is_not_blamed_for_its_form() -> None:
    seed = with_form(line("validation", 0, 0.45, 0.4, 0.5), 0.1, 0.5)
    told = sentences([seed, with_form(line("validation", 1, 0.7, 0.65, 0.75), 0, 0.55)], [])
    assert not [text for text in told if "learned to give" in text or "constant" in text]


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
