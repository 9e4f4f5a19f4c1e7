"""PPE, Preference Proxy Evaluations (arXiv 2410.14872): two benchmarks, as it reports them.

`ppe_preference`: votes of Chatbot Arena (question_id, prompt, response_1, response_2, winner, language), ties dropped.
`ppe_correctness`: five sets with 32 sampled responses a row whose correctness was checked (`scores`). Judged are the
published pairs of a right and a wrong response, `sampled_conflict_pairs`: about five a row, so they say which of two
responses is right, and cannot say which of 32 a judge would pick (PPE's best-of-K needs a score of every response).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from ray_app.base.schema import content_id
from ray_app.benchmarks.base import ID, LETTERS, TEXT, Dropped, Faulty, Ids, Item, Spec, pairwise_item
from ray_app.benchmarks.files import Numbered

PREFERENCE, CORRECTNESS = "ppe_preference", "ppe_correctness"
SETS = ("MMLU-Pro", "MATH", "GPQA", "MBPP-Plus", "IFEval")
# The languages that PPE's own tables have a column for.
LANGUAGES = ("English", "Chinese", "Russian", "German", "Korean", "Japanese", "Spanish", "French", "Portuguese")
OTHER = "other languages"
_LABELS = {"model_a": "A", "model_b": "B"}


def parse_votes(rows: Iterator[Numbered]) -> Iterator[Item]:
    """One item a vote; model_a wrote response_1."""
    ids = Ids()
    for numbered in rows:
        row = numbered.row
        winner = row.get("winner")
        if isinstance(winner, str) and winner.startswith("tie"):
            yield Dropped("tie")
            continue
        language = row.get("language") or ""
        yield pairwise_item(
            ids.derived(str(row.get("question_id"))),
            language if language in ("", *LANGUAGES) else OTHER,
            row.get("prompt"),
            (row.get("response_1"), row.get("response_2")),
            _LABELS.get(winner or "", winner),
        )


def parse_correctness(rows: Iterator[Numbered]) -> Iterator[Item]:
    """One item a sampled pair; its id names set, question, sampling model and the two responses (counted from 1)."""
    ids = Ids()
    for numbered in rows:
        row, name = numbered.row, set_of(numbered.file)
        parts = [name, row.get("question_id"), row.get("model_name")]
        identity = ":".join(str(part) for part in parts if part not in (None, ""))
        pairs = row.get("sampled_conflict_pairs") or []
        yield from (_conflict(ids, identity, name, row, pair) for pair in pairs)
        if not pairs:  # all of its responses are right, or all are wrong
            yield Dropped("no_pair")


def set_of(file: str) -> str:
    """Which of the five sets a hub id or a path names, last parts first; else the file's own name."""
    parts = re.split(r"[/:]", file)
    for part in reversed(parts):
        found = next((name for name in SETS if _squeezed(name) in _squeezed(part)), None)
        if found:
            return found
    return parts[-1].split(".")[0]


def subset_of(name: str) -> str:
    """Any spelling of one of the five sets as PPE's own."""
    return next((known for known in SETS if _squeezed(known) == _squeezed(name)), name)


def _conflict(ids: Ids, identity: str, name: str, row: dict[str, Any], pair: Any) -> Item:
    scores, group = row.get("scores") or [], content_id(row.get("prompt"))
    places: list[Any] = pair if isinstance(pair, list) and len(pair) == 2 else [None, None]
    id = ids.derived(f"{identity}/" + "-".join(str(p + 1) if _is_place(p, scores) else "?" for p in places))
    if not all(_is_place(place, scores) for place in places):
        detail = f"sampled_conflict_pairs holds {pair!r}, scores {len(scores)} responses"
        return Faulty(id, name, group, "bad_pair", detail[:500])
    first, second = (scores[place] for place in places)
    if None in (first, second) or first == second:
        return Faulty(id, name, group, "no_label", f"both responses have the score {first!r}")
    responses = tuple(row.get(f"response_{place + 1}") for place in places)
    return pairwise_item(id, name, row.get("prompt"), (responses[0], responses[1]), LETTERS[first > second])


def _is_place(value: Any, scores: list[Any]) -> bool:
    return isinstance(value, int) and 0 <= value < len(scores)


def _squeezed(text: str) -> str:
    return re.sub(r"[^a-z]", "", text.lower())


VOTES = Spec(
    name=PREFERENCE,
    required={"question_id": ID, "prompt": TEXT, "response_1": TEXT, "response_2": TEXT, "winner": str},
    parse=parse_votes,
    hub=("lmarena-ai/PPE-Human-Preference-V1", None, ("test",)),
)
PAIRS = Spec(
    name=CORRECTNESS,
    required={"question_id": ID, "prompt": TEXT, "scores": list, "sampled_conflict_pairs": list},
    parse=parse_correctness,
    hub=("lmarena-ai/PPE", None, ("train",)),
    parts=tuple(f"lmarena-ai/PPE-{name}-Best-of-K" for name in SETS),
    subset=subset_of,
)
