"""What a seed's chat template may do wrong is one line before any work, which says what would help."""

from __future__ import annotations

from typing import Any

import pytest
from toy_tokenizers import CUTS, DATED, LATE_SYSTEM, NO_END, NO_SYSTEM, PLAIN, THINKS, make

from ray_app.base.schema import Message
from ray_app.errors import InputError
from ray_app.train.template import try_template

USER: Message = {"role": "user", "content": "Which is better? [[A]] or [[B]]"}
SYSTEM: Message = {"role": "system", "content": "You judge."}


@pytest.mark.parametrize("prompt", [[USER], [SYSTEM, USER]])
def test_a_plain_template_is_right(prompt: list[Message]) -> None:
    assert try_template(make(PLAIN), prompt, {}) == []


@pytest.mark.parametrize(
    ("template", "prompt", "options", "words"),
    [
        (LATE_SYSTEM, [SYSTEM, USER], {}, "is not a prefix.*a judge prompt that has no system part"),
        (NO_SYSTEM, [SYSTEM, USER], {}, "no system role here.*a judge prompt that has no system part"),
        (NO_END, [USER], {}, "nothing in it ends an answer.*another chat_template"),
        (
            THINKS,
            [USER],
            {},
            r"text of its own in front of an answer.*chat_template_kwargs \{'enable_thinking': False\} it can",
        ),
        (THINKS, [USER], {"enable_thinking": True}, r"enable_thinking': False"),
        (CUTS, [USER], {}, "removes part of the completion"),
        (None, [USER], {}, "has no chat template"),
        ("{{ broken", [USER], {}, "the template refuses the conversation"),
    ],
)
def test_one_that_cannot_be_trained_with_is_refused_with_advice(
    template: str | None, prompt: list[Message], options: dict[str, Any], words: str
) -> None:
    with pytest.raises(InputError, match=words) as fault:
        try_template(make(template), prompt, options)
    assert "\n" not in str(fault.value)


def test_what_was_advised_works() -> None:
    assert try_template(make(LATE_SYSTEM), [USER], {}) == []
    assert try_template(make(NO_SYSTEM), [USER], {}) == []
    assert try_template(make(THINKS), [USER], {"enable_thinking": False}) == []


def test_a_date_of_the_day_is_told() -> None:
    (note,) = try_template(make(DATED), [USER], {})
    assert "writes the date of the day" in note
    assert try_template(make(DATED), [USER], {"date_string": "26 Jul 2024"}) == []
