"""HelpSteer2 (arXiv 2406.08673): rows in twos by prompt; the more helpful response wins, ties are dropped.

Multi-turn prompts carry `<extra_id_1>User` / `<extra_id_1>Assistant` marks and become message lists. The rows
have no ids: a pair's is the hash of its content. `helpsteer2_ratings` has every response with its helpfulness instead.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from ray_app.base.schema import Text, content_id
from ray_app.benchmarks.base import TEXT, Dropped, Faulty, Ids, Item, Spec, pairwise_item
from ray_app.benchmarks.files import Numbered, Types
from ray_app.benchmarks.rated import rated_item

NAME = "helpsteer2"
_TURN = re.compile(r"\n?<extra_id_1>(User|Assistant)\n")


def parse(rows: Iterator[Numbered]) -> Iterator[Item]:
    """One item for each two neighbouring rows of one prompt; a row without a partner is faulty."""
    ids = Ids()
    waiting: dict[str, Any] | None = None
    for numbered in rows:
        if waiting is None:
            waiting = numbered.row
        elif waiting.get("prompt") == numbered.row.get("prompt"):
            yield _pair(ids, waiting, numbered.row)
            waiting = None
        else:
            yield _alone(ids, waiting)
            waiting = numbered.row
    if waiting is not None:
        yield _alone(ids, waiting)


def parse_ratings(rows: Iterator[Numbered]) -> Iterator[Item]:
    """One item a response: its helpfulness, 0 to 4, is the human score, and no tie is dropped."""
    ids = Ids()
    for numbered in rows:
        row = numbered.row
        identity = ids.derived(content_id([row.get("prompt"), row.get("response")]))
        yield rated_item(identity, "", turns(row.get("prompt")), row.get("response"), row.get("helpfulness"))


def turns(prompt: Any) -> Any:
    """A prompt as a text, or as messages where it holds turn marks; anything but a string stays as it is."""
    if not isinstance(prompt, str) or "<extra_id_1>" not in prompt:
        return prompt
    first, *rest = _TURN.split(prompt)
    pairs = [("user", first), *zip((role.lower() for role in rest[::2]), rest[1::2], strict=True)]
    messages: Text = [{"role": role, "content": content} for role, content in pairs if content.strip()]
    return messages


def _pair(ids: Ids, one: dict[str, Any], two: dict[str, Any]) -> Item:
    identity = ids.derived(content_id([one.get("prompt"), one.get("response"), two.get("response")]))
    scores = (one.get("helpfulness"), two.get("helpfulness"))
    instruction, responses = turns(one.get("prompt")), (one.get("response"), two.get("response"))
    if scores[0] is None or scores[1] is None:
        return pairwise_item(identity, "", instruction, responses, None)
    if scores[0] == scores[1]:
        return Dropped("tie")
    return pairwise_item(identity, "", instruction, responses, "A" if scores[0] > scores[1] else "B")


def _alone(ids: Ids, row: dict[str, Any]) -> Item:
    identity = ids.derived(content_id([row.get("prompt"), row.get("response")]))
    detail = "no second response to the prompt next to this one"
    return Faulty(identity, "", content_id(row.get("prompt")), "unpaired", detail)


COLUMNS: Mapping[str, Types] = {"prompt": TEXT, "response": TEXT, "helpfulness": float}
HUB = ("nvidia/HelpSteer2", None, ("validation",))
SPEC = Spec(name=NAME, required=COLUMNS, parse=parse, hub=HUB)
RATINGS = Spec(name=f"{NAME}_ratings", required=COLUMNS, parse=parse_ratings, hub=HUB, rated=True)
