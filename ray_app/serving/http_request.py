"""What `POST /judge` takes, and the faults it answers with. Pure: bytes in, pairs or an `HttpFault` out.

{"instruction", "response_a", "response_b", "id"?, "votes"?, "explanations"?}        one pair
{"pairs": [{…}, …], "votes"?, "explanations"?}                                        many
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ray_app.base.json_value import parse_json
from ray_app.base.schema import PairwiseRow, content_id
from ray_app.benchmarks import Faulty
from ray_app.benchmarks.base import pairwise_item
from ray_app.benchmarks.files import clean_row
from ray_app.serving.settings import HttpSettings

MESSAGE_CHARACTERS = 300
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class HttpFault(Exception):
    """A request that is refused: status code and one line, however long or broken what it quotes is."""

    def __init__(self, status: int, message: str) -> None:
        self.status, self.message = status, " ".join(message.split())[:MESSAGE_CHARACTERS]
        super().__init__(self.message)


class _Options(BaseModel):
    model_config = ConfigDict(extra="forbid")

    votes: int | None = Field(None, ge=1)
    explanations: bool = False


class _Pair(BaseModel):
    model_config = ConfigDict(extra="forbid")

    id: str | int | None = None
    # Their faults are those of a row, not of the request: `pairwise_item` names them.
    instruction: Any = None
    response_a: Any = None
    response_b: Any = None


class _One(_Pair, _Options):
    pass


class _Many(_Options):
    pairs: list[_Pair] = Field(min_length=1)


@dataclass(frozen=True)
class Asked:
    """A request that can be answered."""

    pairs: list[PairwiseRow | Faulty]
    votes: int
    explanations: bool
    single: bool


def parse_request(body: bytes, limits: HttpSettings, votes: int) -> Asked:
    """`votes` is what the service draws at most. Raises HttpFault: 400 not JSON, 413 too large, 422 not a request."""
    if len(body) > limits.max_body_bytes:
        raise HttpFault(413, f"the body has more than the {limits.max_body_mib:g} MiB that are taken")
    try:
        value = parse_json(body.removeprefix(BYTE_ORDER_MARK))
    except ValueError as fault:
        raise HttpFault(400, f"the body is not JSON: {fault}") from fault
    if not isinstance(value, dict):
        raise HttpFault(422, "the body is not a JSON object")
    single = "pairs" not in value
    asked: _One | _Many
    try:
        asked = _One.model_validate(value) if single else _Many.model_validate(value)
    except ValidationError as fault:
        error = fault.errors()[0]
        raise HttpFault(422, f"{'.'.join(map(str, error['loc']))}: {error['msg']}") from fault
    pairs = [asked] if isinstance(asked, _One) else asked.pairs
    if len(pairs) > limits.max_pairs:
        raise HttpFault(413, f"{len(pairs)} pairs; at most {limits.max_pairs} are taken in one request")
    if asked.votes is not None and asked.votes > votes:
        raise HttpFault(422, f"votes: {asked.votes} is more than the {votes} that this service draws")
    items = [_item(pair) for pair in pairs]
    twice = next((identity for identity, n in Counter(item.id for item in items).items() if n > 1), None)
    if twice is not None:
        raise HttpFault(422, f"id {twice[:80]!r} occurs twice")
    return Asked(items, asked.votes or votes, asked.explanations, single)


def _item(pair: _Pair) -> PairwiseRow | Faulty:
    row = clean_row(pair.model_dump())
    texts = [row[name] for name in ("instruction", "response_a", "response_b")]
    identity = content_id(texts) if row["id"] is None else str(row["id"])
    return pairwise_item(identity, "", texts[0], (texts[1], texts[2]), None, labelled=False)
