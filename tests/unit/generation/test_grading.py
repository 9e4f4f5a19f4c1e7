"""Graders: what is right, what is wrong, and what cannot be told. A wrong label would be worse than none."""

from __future__ import annotations

import random
import time
from fractions import Fraction

import pytest

from ray_app.generation.grading import GRADERS, evaluable, exact, known_answer, numeric


@pytest.mark.parametrize(
    ("known", "response", "grade"),
    [
        ("18", "So she makes $18 every day.", True),
        ("18", "16 - 3 - 4 = 9 eggs.\n9 * 2 = 18 dollars", True),
        ("18", "The answer is 18.0", True),
        ("18", "**Answer:** 18", True),
        ("18", "**Answer: 17**", False),
        ("18", "The answer is **$17**.", False),
        ("18", "#### 17", False),
        ("18", "#### Step 1\nAdd 5.\n#### Step 2\nThe total is 18", True),
        ("1,000", "#### 1000", True),
        ("70000", "The profit is $70,000.", True),
        ("0.25", "25%", True),
        ("0.5", "= 1/2", True),
        ("3/4", "The answer is 3/4 cup", True),
        (r"\frac{3}{4}", "The answer is 0.75", True),
        (r"2\sqrt{3}", r"So \boxed{\sqrt{12}}.", True),
        (r"2\sqrt{3}", r"So \boxed{\sqrt{13}}.", False),
        ("10^3", "The answer is 1000", True),
        ("-3", "The answer is -3.", True),
        ("3", "The answer is -3.", False),
        ("-3", "x = 3", False),
        ("18", "Of 18 there are left:\nThe final answer is: 20 dollars", False),
        # Neither: no final answer, or one that holds the right one beside others.
        ("18", "I do not know.", None),
        ("18", "", None),
        ("five", "5", None),
        ("18", "She earns $18 a day for 7 days.", None),
        ("18", "Part 1: the answer is 9.\nTotal: 9 + 9 = 18", None),
        ("18", "The answer is 17 or 18", None),
    ],
)
def test_numbers(known: str, response: str, grade: bool | None) -> None:
    assert numeric(known, response) is grade


def test_fractions_are_equal_as_python_says() -> None:
    """Against exact arithmetic: a fraction in other forms, and its neighbours."""
    draw = random.Random(5)
    for _ in range(40):
        a, b, k = draw.randint(1, 60), draw.randint(1, 60), draw.randint(1, 5)
        other = Fraction(draw.randint(1, 60), b)
        known = f"{a}/{b}"
        for response, value in ((f"{a * k}/{b * k}", Fraction(a, b)), (str(other), other)):
            assert numeric(known, f"The answer is {response}") is (value == Fraction(a, b)), (known, response)


@pytest.mark.parametrize(
    ("known", "response", "grade"),
    [
        ("B", "(B)", True),
        ("B", "The answer is (b).", True),
        ("B", "C", False),
        ("New York", "Answer: new york!", True),
        ("Paris", "London", False),
        ("Paris", "The answer is London, as all of us have known ever since we were at school there.", False),
        ("Paris", "not Paris", None),
        ("B", "The answer is B because C is wrong", None),
        ("Paris", "It is a city on the Seine which everybody knows who has ever been to that country", None),
        ("Paris", "", None),
        ("!", "!", None),
    ],
)
def test_words(known: str, response: str, grade: bool | None) -> None:
    assert exact(known, response) is grade


@pytest.mark.parametrize(
    ("column", "known"),
    [
        ("9 * 2 = <<9*2=18>>18 a day.\n#### 18", "18"),
        (r"Thus \boxed{\frac{1}{2}}.", r"\frac{1}{2}"),
        (" Paris ", "Paris"),
        ("18", "18"),
        ("", ""),
    ],
)
def test_known_answers_of_common_sets(column: str, known: str) -> None:
    assert known_answer(column) == known


@pytest.mark.parametrize(
    "text",
    [
        "9**9**9**9",
        "9^9^9^9",
        "10^{10^{10}}",
        "2^{99*99*99*99}",
        "2^1000000",
        "100000000!",
        r"\binom{999999}{499999}",
        r"\sum_{i=1}^{99} i",
        "3" * 5000,
        "1+" * 200 + "1",
        "(" * 300 + ")" * 300,
    ],
)
def test_what_would_take_for_ever_is_not_evaluated(text: str) -> None:
    assert not evaluable(text)
    started = time.monotonic()
    assert numeric("18", f"The answer is {text}") is None
    assert numeric("18", rf"\boxed{{{text}}}") is None
    assert time.monotonic() - started < 60, "a hang would be one of hours"


@pytest.mark.parametrize("text", ["18", r"\frac{1}{2}", "x^2 + 3^{10}", "(10^99)^99", r"$70,\!000$", r"5\%"])
def test_what_answers_are_made_of_is_evaluated(text: str) -> None:
    assert evaluable(text)
    assert numeric("18", f"The answer is {text}") is (text == "18")


def test_graders_go_by_name() -> None:
    assert {name: grade("7", "7") for name, grade in GRADERS.items()} == {"numeric": True, "exact": True}
