"""Small tokenizers with chat templates of known habits, for tests of what a seed's template may do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

TURN = "{% for m in messages %}<|turn|>{{ m.role }}\n{{ m.content }}<|end|>\n{% endfor %}"
OPEN = "{% if add_generation_prompt %}<|turn|>assistant\n{% endif %}"
PLAIN = TURN + OPEN
# The system text stands in front of the last message, where that is the user's: not a prefix once an answer follows.
LATE_SYSTEM = (
    "{% set ns = namespace(s='') %}{% for m in messages %}{% if m.role == 'system' %}{% set ns.s = m.content %}"
    "{% elif m.role == 'user' %}<|turn|>{% if loop.last %}{{ ns.s }}{% endif %}{{ m.content }}"
    "{% else %}<|turn|>assistant\n{{ m.content }}<|end|>\n{% endif %}{% endfor %}" + OPEN
)
NO_SYSTEM = "{% if messages[0].role == 'system' %}{{ raise_exception('no system role here') }}{% endif %}" + PLAIN
NO_END = (
    "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)
THINKS = (
    "{% for m in messages %}<|turn|>{{ m.role }}\n{% if m.role == 'assistant' %}<think>\n\n</think>\n\n{% endif %}"
    "{{ m.content }}<|end|>\n{% endfor %}" + "{% if add_generation_prompt %}<|turn|>assistant\n"
    "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
CUTS = TURN.replace("{{ m.content }}", "{{ m.content.split('Response B')[0] }}") + OPEN
DATED = "Today is {{ strftime_now('%d %B') }}.\n" + PLAIN


def make(
    template: str | None,
    eos: str | None = "<|end|>",
    special: Sequence[str] = ("<|turn|>", "<|end|>"),
    added: Sequence[str] = (),
) -> Any:
    """A byte-level tokenizer with two control tokens, or with these `special` and other `added` ones."""
    raw = Tokenizer(
        models.BPE(vocab={b: i for i, b in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}, merges=[])
    )
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    raw.add_special_tokens([AddedToken(token, special=True) for token in special])
    raw.add_tokens([AddedToken(token, special=False, normalized=False) for token in added])
    made = PreTrainedTokenizerFast(tokenizer_object=raw, eos_token=eos)
    made.chat_template = template
    return made
