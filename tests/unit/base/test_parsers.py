"""The parsers of published scorers, each against its rule written out again, and where they part."""

from __future__ import annotations

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_app.base.parsers import OF_LETTERS, PARSERS, ParserName, judgebench, rewardbench, self_taught
from ray_app.base.verdict import parse_verdict

TEXTS = st.lists(
    st.sampled_from(["[[A]]", "[[B]]", "[[C]]", "[[A>B]]", "[[B>>A]]", "[[A=B]]", "so", " ", "<think>", "</think>"]),
    max_size=6,
).map("".join)


def test_every_name_has_a_parser() -> None:
    assert set(PARSERS) == set(get_args(ParserName))
    assert PARSERS["last"] is parse_verdict
    assert set(PARSERS) > OF_LETTERS


@pytest.mark.parametrize(
    ("text", "last", "rewardbenchs", "releases", "judgebenchs"),
    [
        ("I say [[A]]", "A", "A", "A", None),
        ("[[B]], no: [[A]]", "A", "A", None, None),
        ("[[A]], no: [[B]]", "B", "A", None, None),
        ("<think>[[A]]</think> [[B]]", "B", "A", None, None),
        ("<think>[[A]] or", None, "A", "A", None),
        ("[[B]], or [[C]]?", None, "B", "B", None),
        ("a tie: [[C]]", None, None, None, None),
        ("My verdict: [[A>>B]]", None, None, None, "A"),
        ("[[B>A]] and again [[B>A]]", None, None, None, "B"),
        ("[[A>B]], no: [[A>>B]]", None, None, None, None),
        ("[[A=B]]", None, None, None, None),
        ("", None, None, None, None),
    ],
)
def test_where_they_part(
    text: str, last: str | None, rewardbenchs: str | None, releases: str | None, judgebenchs: str | None
) -> None:
    assert [parse(text, "AB") for parse in PARSERS.values()] == [last, rewardbenchs, releases, judgebenchs]


@given(TEXTS)
def test_against_their_rules_written_out(text: str) -> None:
    a, b = text.count("[[A]]"), text.count("[[B]]")
    assert rewardbench(text) == ("A" if a else "B" if b else None)
    assert self_taught(text) == (None if (a > 0) == (b > 0) else "A" if a else "B")
    marks = {part.split("]]")[0] for part in text.split("[[")[1:]} - {"C"}
    decided = {"A>B": "A", "B>>A": "B"}
    assert judgebench(text) == (decided.get(min(marks)) if len(marks) == 1 else None)


def test_rewardbench_2_reads_four_letters_in_their_order() -> None:
    assert rewardbench("[[D]] or [[C]]", "ABCD") == "C"
    assert rewardbench("[[D]] or [[C]]", "AB") is None
