"""What the progress line says of tokens, and of the time that is left."""

from __future__ import annotations

import pytest

from ray_app.system.progress import Part, Progress, left, line_of_tokens


@pytest.mark.parametrize(
    ("tokens", "before", "seconds", "told"),
    [
        (0, 0, 10.0, "0 tokens, 0 tok/s"),
        (2_500, 500, 10.0, "2,000 tokens, 200 tok/s"),
        (3, 500, 10.0, "0 tokens, 0 tok/s"),
        (None, 0, 10.0, ""),
    ],
)
def test_tokens_in_words(tokens: int | None, before: int, seconds: float, told: str) -> None:
    assert line_of_tokens(tokens, before, seconds) == told


def test_how_long_it_takes_is_told_once_enough_is_done() -> None:
    """Of 78 rows the first two are the shortest: by them the rest would take hours."""
    assert left(0, 78, 30.0) == "no row is finished yet"
    assert left(2, 78, 30.0) == ""
    assert left(39, 78, 30.0) == "about 30 s left"
    assert left(78, 78, 30.0) == ""


@pytest.mark.parametrize(
    ("at_most", "units", "told"),
    [
        (False, 39, "judgments: 39 of 78 rows, about "),
        (True, 39, "judgments: 39 of at most 78 rows"),
        (True, 0, "judgments: 0 of at most 78 rows, no row is finished yet"),
    ],
)
def test_of_a_total_that_is_not_known_yet_no_time_is_told(at_most: bool, units: int, told: str) -> None:
    progress = Progress(Part("judgments", 78, None, at_most=at_most))
    progress.before = {(): 0}
    progress._tell(0, units, None)
    line = progress.lines[0]
    assert line.startswith(told) if told.endswith(" ") else line == told
