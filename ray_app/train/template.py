"""The seed's chat template is tried before any work: one specimen conversation with the run's own judge prompt. Pure.

What a template can do wrong shows in its text alone: it may know no system role, render a prompt otherwise once an
answer follows, change the answer, or end no turn. Found out after all judging, every row would be lost.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ray_app.base.reasoning import declared, opened_by
from ray_app.base.schema import Message
from ray_app.errors import InputError
from ray_app.train.answers import RowFault, spelled
from ray_app.train.data import encode

SPECIMEN = "Response A answers the question.\n\nResponse B does not.\n\n[[A]]"
REASONED = f"<think>\nOnly A names a fruit.\n</think>\n\n{SPECIMEN}"
UNLIMITED = 10**9
CALM = ({"enable_thinking": False}, {"thinking": False})  # what turns reasoning off, in most templates that know it


def try_template(tokenizer: Any, prompt: Sequence[Message], options: Mapping[str, Any]) -> list[str]:
    """Warnings for a template that can be trained with. Raises InputError, one line that says what to do, for one that
    cannot. `prompt` is a judge's prompt as the run renders it, `options` are `chat_template_kwargs`.
    """
    if not getattr(tokenizer, "chat_template", None):
        raise InputError("judge.model: its tokenizer has no chat template, and judges are asked in chat messages")
    fault = template_fault(tokenizer, prompt, options)
    if fault is not None:
        advice = _advice(tokenizer, prompt, options)
        raise InputError(f"judge.model: its chat template cannot be trained with: {fault}; {advice}")
    return dated(tokenizer.chat_template, options)


def template_fault(tokenizer: Any, prompt: Sequence[Message], options: Mapping[str, Any]) -> str | None:
    """Why a judgment with this prompt could not be trained on; None where it can. Where nobody has said whether the
    judge reasons, a template that can render judgments of either kind will do.
    """
    reasons = declared(options)
    kinds = [SPECIMEN, REASONED] if reasons is None else [REASONED] if reasons else [SPECIMEN]
    faults = [_fault(tokenizer, prompt, options, text) for text in kinds]
    return None if None in faults else faults[0]


def _fault(tokenizer: Any, prompt: Sequence[Message], options: Mapping[str, Any], text: str) -> str | None:
    messages = [{"role": message["role"], "content": message["content"]} for message in prompt]
    answer = [{"role": "assistant", "content": text}]
    try:
        encoded = encode(tokenizer, messages, answer, sequence_length=UNLIMITED, chat_template_kwargs=options)
        asked = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False, **options)
        drawn = spelled(tokenizer, text.removeprefix(opened_by(asked)))  # as a judgment of the run would come
        encode(tokenizer, messages, answer, sequence_length=UNLIMITED, chat_template_kwargs=options, drawn=drawn)
    except RowFault as fault:
        return fault.detail
    whole = tokenizer.apply_chat_template(messages + answer, tokenize=False, **options)
    if not whole[len(asked) :].lstrip().startswith(text.removeprefix(opened_by(asked))):
        return "it writes text of its own in front of an answer"
    if not ends_turn(tokenizer, _behind(tokenizer, list(encoded.tokens[encoded.prompt :]))):
        return "nothing in it ends an answer, so a judge trained with it would never stop"
    return None


def ends_turn(tokenizer: Any, tail: Sequence[int]) -> bool:
    """Whether the tokens behind an answer hold one that ends a turn: the model's own end, or one that is no text."""
    added = {index for index, token in getattr(tokenizer, "added_tokens_decoder", {}).items() if token.content.strip()}
    return any(token == tokenizer.eos_token_id or token in added for token in tail)


def _behind(tokenizer: Any, answer: list[int]) -> list[int]:
    """The tokens behind an answer's text: its verdict is the last of it, and stands in the text as it was given."""
    for length in range(len(answer), 0, -1):
        if "[[A]]" not in tokenizer.decode(answer[: length - 1]):
            return answer[length:]
    return answer


def _advice(tokenizer: Any, prompt: Sequence[Message], options: Mapping[str, Any]) -> str:
    """What would help, tried out."""
    for calm in CALM:
        if template_fault(tokenizer, prompt, {**options, **calm}) is None:
            return f"with judge.chat_template_kwargs {calm} it can"
    without = [message for message in prompt if message["role"] != "system"]
    if len(without) < len(prompt) and template_fault(tokenizer, without, options) is None:
        return "with a judge prompt that has no system part (prompts.judge) it can"
    return "give the seed another chat_template (tokenizer_config.json), or take another seed"


def dated(template: Any, options: Mapping[str, Any]) -> list[str]:
    """A warning where a template writes today's date: a judge is then trained and asked with other prompts each day."""
    if "strftime_now" not in str(template) or "date_string" in options:
        return []
    fixed = "judge.chat_template_kwargs {date_string: …} fixes it"
    return [f"judge.model: its chat template writes the date of the day; {fixed}"]
