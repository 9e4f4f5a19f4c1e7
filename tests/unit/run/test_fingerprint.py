"""A mismatch names the setting; the same settings never mismatch, however they were stored."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_app.errors import InputError
from ray_app.run.fingerprint import Fingerprint, check, differences, fingerprint, flatten

VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(-2, 2), st.sampled_from([0.0, 1.0, 0.5]), st.text(max_size=3),
    st.lists(st.integers(0, 1), max_size=2), st.tuples(st.integers(0, 1)),
)  # fmt: skip
SETTINGS = st.dictionaries(st.sampled_from("abc"), st.one_of(VALUES, st.dictionaries(st.sampled_from("xy"), VALUES)))


def make(settings: dict[str, Any], inputs: dict[str, str] | None = None, upstream: tuple[str, ...] = ()) -> Fingerprint:
    return fingerprint("pairs", settings, inputs or {}, upstream)


def test_settings_are_flattened_to_dotted_names() -> None:
    assert flatten({"train": {"lr": 1, "betas": (0.9, 0.95)}, "seed": 0}) == {
        "train.lr": 1,
        "train.betas": [0.9, 0.95],
        "seed": 0,
    }


def test_the_setting_its_values_and_the_stage_are_named() -> None:
    old, new = make({"pairs": {"sampling": {"temperature": 0.7}}}), make({"pairs": {"sampling": {"temperature": 1.0}}})
    with pytest.raises(InputError) as caught:
        check(old, new, "pairs")
    message = str(caught.value)
    assert "setting pairs.sampling.temperature was 0.7, is now 1.0" in message
    assert "committed stage 'pairs'" in message
    assert "another run name" in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ({"a": 1}, {"a": True}, "setting a was 1, is now True"),
        ({"a": 1}, {"a": 1.0}, "setting a was 1, is now 1.0"),
        ({}, {"a": None}, "setting a was not set, is now None"),
        ({"a": None}, {}, "setting a was None, is now not set"),
    ],
)
def test_values_that_python_takes_for_equal(old: dict[str, Any], new: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        check(make(old), make(new), "pairs")


def test_inputs_and_upstream_are_named() -> None:
    old = make({}, {"data.jsonl": "1", "gone.jsonl": "1"}, ("u",))
    new = make({}, {"data.jsonl": "2", "new.jsonl": "1"}, ("v",))
    assert differences(old, new) == [
        "the content of data.jsonl changed",
        "input gone.jsonl is gone",
        "input new.jsonl appeared",
        "the stage before it changed",
    ]


def test_many_differences_stay_one_readable_line() -> None:
    old, new = make({f"s{i}": 0 for i in range(9)}), make({f"s{i}": 1 for i in range(9)})
    with pytest.raises(InputError, match=r"s0 was 0, is now 1; .*s2 was 0, is now 1 \(and 6 more\)"):
        check(old, new, "pairs")


@given(SETTINGS)
def test_a_stored_fingerprint_is_the_same_one(settings: dict[str, Any]) -> None:
    printed = make(settings)
    stored = Fingerprint.model_validate_json(printed.model_dump_json())
    assert stored.digest == printed.digest
    assert differences(stored, printed) == []
    check(stored, printed, "pairs")


@given(SETTINGS, SETTINGS)
def test_a_mismatch_always_has_a_name(old: dict[str, Any], new: dict[str, Any]) -> None:
    first, second = make(old), make(new)
    assert (first.digest == second.digest) == (differences(first, second) == [])


@given(SETTINGS)
def test_the_order_of_settings_does_not_matter(settings: dict[str, Any]) -> None:
    assert make(dict(reversed(settings.items()))).digest == make(settings).digest
