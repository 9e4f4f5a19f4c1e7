"""JSON from outside: what is taken, and what is refused before other code meets it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ray_app.base.json_value import MAX_DEPTH, parse_json

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(), lambda v: st.lists(v) | st.dictionaries(st.text(), v)
)


@given(VALUES)
@settings(max_examples=40)
def test_a_value_is_itself(value: Any) -> None:
    assert parse_json(json.dumps(value)) == parse_json(json.dumps(value).encode()) == value


@pytest.mark.parametrize("brackets", ["[]", "{}"])
def test_depth(brackets: str) -> None:
    def nested(depth: int) -> str:
        start = "[" if brackets == "[]" else '{"a": '
        return start * depth + "1" + brackets[1] * depth

    assert parse_json(nested(MAX_DEPTH))
    for depth in (MAX_DEPTH + 1, 900, 100_000):
        with pytest.raises(ValueError, match="nested more than 100 deep"):
            parse_json(nested(depth))


def test_faults_keep_their_kind_or_say_what_it_is() -> None:
    with pytest.raises(json.JSONDecodeError):
        parse_json("{")
    with pytest.raises(UnicodeDecodeError):
        parse_json(b"\xff")
    with pytest.raises(ValueError, match="a number has more than 4300 digits"):
        parse_json("9" * 5000)
