"""Which response a judgment calls the better one in its own words."""

from __future__ import annotations

import pytest

from ray_app.base.called_better import called_better


@pytest.mark.parametrize(
    ("text", "side"),
    [
        ("The second response is indeed a better choice, for it names the bird.", "B"),
        ("Response A is better than Response B.", "A"),
        ('Response "B" seems to be the best.', "B"),
        ("**Assistant A** was clearly superior", "A"),
        ("Option (b) is worse", "A"),
        ("The first answer is inferior.", "B"),
        ("Response A is better in form, but overall response B is the better one.", "B"),
        ("The second one is preferred", "B"),
    ],
)
def test_a_phrase_that_calls_one_response_better(text: str, side: str) -> None:
    assert called_better(text) == side


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[[A]]",
        "Response A is not better.",
        "Response B is no better than the first.",
        "The second response is more concise.",
        "Response About is better",
        "It is better to answer first.",
        "Neither response A nor response B is better.",
        "Which response is better?",
        "The first person is better at chess.",
    ],
)
def test_what_calls_neither(text: str) -> None:
    assert called_better(text) is None
