"""What the progress line says of tokens."""

from __future__ import annotations

import pytest

from ray_app.system.progress import line_of_tokens


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
