"""Makers of outcomes for the tests of statistics."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from ray_app.base.verdict import Count
from ray_app.metrics.outcome import Outcome

LETTER = st.sampled_from(["A", "B"])
VERDICT = st.sampled_from(["A", "B", None])


def outcome(id: str, label: str | None, ab: str | None, ba: str | None = None, **fields: Any) -> Outcome:
    """An outcome of its own cluster and no subset, unless `fields` say otherwise."""
    return Outcome(id, fields.pop("subset", ""), fields.pop("group", id), label, ab, ba, **fields)


@st.composite
def outcomes(draw: st.DrawFn, smallest: int = 1) -> list[Outcome]:
    """Rows judged in both orders, in a few clusters and subsets."""
    n = draw(st.integers(smallest, 12))
    return [
        outcome(
            f"r{i}",
            draw(LETTER),
            draw(VERDICT),
            draw(VERDICT),
            group=draw(st.sampled_from("uvwx")),
            subset=draw(st.sampled_from(["s", "t"])),
            length_a=draw(st.integers(0, 9)),
            length_b=draw(st.integers(0, 9)),
        )
        for i in range(n)
    ]


def votes(letters: str) -> Count:
    """A tally from letters, `-` for unparsed."""
    return Count(letters.count("A"), letters.count("B"), letters.count("-"))
