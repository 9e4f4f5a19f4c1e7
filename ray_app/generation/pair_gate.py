"""The gate for pairs: why the label of a response pair cannot be trusted, or why it would teach something else. Pure.

Every reason is one of the quarantine's; each costs nothing but the reading of texts.

    no_modified_instruction    the generator wrote none
    empty_response             nothing was answered
    cut_off_*                  an answer was longer than its token limit
    equal_responses            both say the same: no better one
    modified_equals_original   the modified instruction asks for the same (word trigrams)
    not_an_instruction         the modified instruction is an answer, or talk about the task
    adds_to_original           the original with something added: its answer often answers the original too
    meta_talk                  a response talks about being an assistant, not about what was asked
    refusal                    a response declines: which is better does not follow from the instructions
    lengths_apart              one response is many times as long: length alone would tell

    contaminated_modified      the modified instruction shares text with a benchmark (`base.ngrams`)

What costs a question to a model stands in `generation/programs/asking.py`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from ray_app.base.ngrams import words
from ray_app.base.schema import Text

CONTAMINATED = "contaminated_modified"
# What a small generator writes in place of an answer (seen among SmolLM2's pairs: "I'm ready to help").
_META = re.compile(
    r"^\W*(?:"
    r"(?:hello|hi|hey|sure|certainly|of course|absolutely|okay|ok|great)?[\s,!.]*"
    r"(?:i(?:['’]m| am|['’]ll| will| can) (?:be )?(?:ready|happy|glad|here|excited|delighted|pleased|able)"
    r"(?: and ready)? to (?:help|assist)"
    r"|(?:how|what) can i (?:help|assist|do for)"
    r"|(?:please )?(?:provide|share|give me|send me|tell me) (?:me )?(?:with )?(?:the|your|a|more) "
    r"(?:\w+ )?(?:instruction|prompt|text|question|details|task|information|input)"
    r"|(?:what|which) (?:instruction|task|prompt|question) (?:would|do) you)"
    r"|as an ai (?:language )?model"
    r")",
    re.IGNORECASE,
)
_REFUSAL = re.compile(
    r"^\W*(?:i(?:['’]m| am) (?:really |very |so )?sorry\b|sorry, (?:but )?i\b|i apologi[sz]e\b|"
    r"(?:unfortunately,? )?i(?:['’]m| am)? (?:can(?:['’]t|not)|unable to|not able to|won['’]t|will not) "
    r"(?:help|assist|provide|answer|fulfil|fulfill|comply|create|write|generate|do|discuss|share|give)\b)",
    re.IGNORECASE,
)
_NO_INSTRUCTION = re.compile(
    r"^\W*(?:here(?:['’]s| is| are) (?:a|an|the|my|some)\b|sure\b[,!.]|certainly\b[,!.]"
    r"|the (?:new|modified) instruction\b|(?:this|the) (?:new |modified )?instruction (?:is|asks|has)\b)",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Gate:
    """Thresholds. Those that are None are not asked for."""

    max_similarity: float = 0.9  # of original and modified instruction, by word trigrams
    heuristics: bool = False  # the reasons from `not_an_instruction` on
    max_length_ratio: float | None = None  # words of the longer response over those of the shorter


def pair_fault(
    instruction: Text, modified: str | None, chosen: str, rejected: str, cut_off: list[str], gate: Gate
) -> str | None:
    """Why a pair is not made, or None. `modified` is None where the strategy has none; `cut_off` names answers that
    were too long for their token limit.
    """
    if modified is not None and not modified:
        return "no_modified_instruction"
    if not chosen or not rejected:
        return "empty_response"
    if cut_off:
        return f"cut_off_{cut_off[0]}"
    if words(chosen) == words(rejected):
        return "equal_responses"
    original = last_turn(instruction)
    if modified is not None and similarity(original, modified) > gate.max_similarity:
        return "modified_equals_original"
    return _heuristic_fault(original, modified, chosen, rejected, gate)


def _heuristic_fault(original: str, modified: str | None, chosen: str, rejected: str, gate: Gate) -> str | None:
    if gate.heuristics:
        if modified is not None and _NO_INSTRUCTION.match(modified):
            return "not_an_instruction"
        if modified is not None and adds_to(original, modified):
            return "adds_to_original"
        if is_meta_talk(chosen) or is_meta_talk(rejected):
            return "meta_talk"
        if is_refusal(chosen) or is_refusal(rejected):
            return "refusal"
    if gate.max_length_ratio is not None and length_ratio(chosen, rejected) > gate.max_length_ratio:
        return "lengths_apart"
    return None


def is_meta_talk(response: str) -> bool:
    """Whether a response talks about being an assistant, or asks for the instruction, in place of an answer."""
    return _META.match(response) is not None


def is_refusal(response: str) -> bool:
    """Whether a response begins by declining."""
    return _REFUSAL.match(response) is not None


def last_turn(instruction: Text) -> str:
    """What is asked: the last message of a conversation."""
    return instruction if isinstance(instruction, str) else instruction[-1]["content"]


def adds_to(original: str, modified: str) -> bool:
    """Whether `modified` begins with the whole of `original` and goes on by no more than it was long: its answer would
    mostly answer the original too. A long prompt of which a sentence was changed is none.
    """
    first, second = words(original), words(modified)
    return bool(first) and second[: len(first)] == first and len(first) < len(second) <= 2 * len(first) + 5


def length_ratio(a: str, b: str) -> float:
    """Words of the longer over words of the shorter text; at least 1."""
    first, second = len(words(a)) or 1, len(words(b)) or 1
    return max(first, second) / min(first, second)


def similarity(a: str, b: str) -> float:
    """Jaccard similarity of word trigrams, in [0, 1]; texts under three words are compared as word sets."""
    first, second = words(a), words(b)
    size = min(3, len(first), len(second)) or 1
    grams_a = {tuple(first[i : i + size]) for i in range(len(first) - size + 1)}
    grams_b = {tuple(second[i : i + size]) for i in range(len(second) - size + 1)}
    union = grams_a | grams_b
    return len(grams_a & grams_b) / len(union) if union else 1.0
