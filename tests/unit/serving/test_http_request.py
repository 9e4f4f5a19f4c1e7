"""What POST /judge takes: every fault has its status and one line; a faulty pair spoils no other."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ray_app.base.schema import PairwiseRow
from ray_app.benchmarks import Faulty
from ray_app.serving.http_request import HttpFault, parse_request
from ray_app.serving.settings import HttpSettings

LIMITS = HttpSettings(max_pairs=3, max_body_mib=0.01)
PAIR = {"instruction": "Name a fruit.", "response_a": "apple", "response_b": "brick"}


def body(value: Any) -> bytes:
    return json.dumps(value).encode()


def test_one_pair() -> None:
    asked = parse_request(body({**PAIR, "id": 7, "explanations": True}), LIMITS, votes=5)
    assert (asked.single, asked.votes, asked.explanations) == (True, 5, True)
    (pair,) = asked.pairs
    assert isinstance(pair, PairwiseRow)
    assert pair.id == "7"


def test_many_pairs_get_content_ids_where_they_have_none() -> None:
    asked = parse_request(body({"pairs": [PAIR, {**PAIR, "response_b": "stone"}], "votes": 2}), LIMITS, votes=5)
    assert (asked.single, asked.votes) == (False, 2)
    again = parse_request(body({"pairs": [PAIR]}), LIMITS, votes=1)
    assert asked.pairs[0].id == again.pairs[0].id != asked.pairs[1].id


def test_messages_are_texts_too() -> None:
    turn = [{"role": "user", "content": "Hello"}]
    (pair,) = parse_request(body({**PAIR, "instruction": turn}), LIMITS, 1).pairs
    assert isinstance(pair, PairwiseRow)
    assert pair.instruction == turn


def test_a_faulty_pair_is_one_of_its_own() -> None:
    asked = parse_request(body({"pairs": [PAIR, {**PAIR, "id": "x", "response_a": " "}]}), LIMITS, 1)
    assert [type(pair) for pair in asked.pairs] == [PairwiseRow, Faulty]
    assert asked.pairs[1].reason == "empty_response_a"


@pytest.mark.parametrize(
    ("given", "status", "named"),
    [
        (b"{", 400, "not JSON"),
        (b"\xff\xfe{}", 400, "not JSON"),
        (b"[]", 422, "not a JSON object"),
        (b'{"id": ' + b"9" * 5000 + b"}", 400, "not JSON: a number has more than 4300 digits"),
        (body({**PAIR, "instruction": 7}).replace(b"7", b"9" * 5000), 400, "more than 4300 digits"),
        (b"[" * 9000, 400, "nested more than 100 deep"),
        (body({**PAIR, "instruction": 7}).replace(b"7", b"[" * 900 + b"]" * 900), 400, "nested more than 100 deep"),
        (b'{"a\\nb": 1}', 422, "a b: Extra inputs"),
        (b'{"' + b"k" * 9000 + b'": 1}', 422, "kkk"),
        (body({**PAIR, "respones_a": "x"}), 422, "respones_a"),
        (body({"pairs": []}), 422, "pairs"),
        (body({"pairs": [PAIR] * 4}), 413, "4 pairs; at most 3"),
        (body({"pairs": [{**PAIR, "id": 1}, {**PAIR, "id": "1"}]}), 422, "'1' occurs twice"),
        (body({**PAIR, "votes": 9}), 422, "9 is more than the 5"),
        (body({**PAIR, "votes": 0}), 422, "votes"),
        (body({**PAIR, "response_a": "x" * 20_000}), 413, "more than the 0.01 MiB"),
    ],
)
def test_faults(given: bytes, status: int, named: str) -> None:
    with pytest.raises(HttpFault) as fault:
        parse_request(given, LIMITS, votes=5)
    assert fault.value.status == status
    assert named in fault.value.message
    assert "\n" not in fault.value.message
    assert len(fault.value.message) <= 300


def test_a_deep_body_of_allowed_size() -> None:
    with pytest.raises(HttpFault) as fault:
        parse_request(b'{"instruction": ' + b"[" * 100_000, HttpSettings(), votes=1)
    assert (fault.value.status, fault.value.message) == (400, "the body is not JSON: it is nested more than 100 deep")


def test_a_byte_order_mark_is_no_fault() -> None:
    assert parse_request(b"\xef\xbb\xbf" + body(PAIR), LIMITS, 1).single
