"""What judgments say besides their verdict."""

from __future__ import annotations

from ray_app.judging.said import Said

PARIS, LYON = "The capital of France is Paris.", "The capital of France is Lyon."


def test_bare_verdicts_phrases_and_names_are_counted() -> None:
    said = Said()
    for text in (
        "[[A]]",
        "Response A names Paris, which is right. [[A]]",
        "Response A is the better one. [[A]]",
        "Response A is the better one. [[B]]",
    ):
        said.see(text, (PARIS, LYON))
    found = said.numbers()
    assert found["bare_verdicts"] == 0.25
    assert found["distinct_explanations"] == 2 / 3
    assert found["telling_explanations"] == 0.25
    assert found["explanation_words_median"] == 6


def test_a_judgment_may_call_the_other_response_better() -> None:
    said = Said()
    for text in (
        "Response A is the better one. [[A]]",
        "The second response is better. [[A]]",
        "Response B is worse. [[A]]",
        "Response B is better.",  # without a verdict it contradicts none
        "It is shorter. [[B]]",
    ):
        said.see(text)
    found = said.numbers()
    assert found["calling_explanations"] == 3 / 5
    assert found["contradicting_explanations"] == 1 / 3
    assert Said().numbers()["contradicting_explanations"] is None


def test_without_responses_nothing_is_said_of_names() -> None:
    said = Said()
    said.see("Because. [[A]]")
    assert "telling_explanations" not in said.numbers()
    assert Said().numbers()["bare_verdicts"] is None
