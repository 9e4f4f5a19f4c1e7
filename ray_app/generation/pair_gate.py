"""The gate for pairs: why the label of a response pair cannot be trusted, or why it would teach something else. Pure.

Every reason is one of the quarantine's; each costs nothing but the reading of texts.

    no_modified_instruction    the generator wrote none
    empty_response             nothing was answered
    cut_off_*                  an answer was longer than its token limit
    equal_responses            both say the same: no better one
    modified_equals_original   the modified instruction asks for the same (word trigrams), and no sentence was changed
    nearly_equal_responses     nearly all of their words are the same (word trigrams): the label means little
    not_an_instruction         the modified instruction asks for nothing, is an answer, or talks about the task
    another_language           the modified instruction is of another language
                               (neither is asked of a real instruction: it is one, in whatever language)
    rephrases_original         the modified instruction has the original's words
    adds_to_original           the original with something added: its answer often answers the original too
    meta_talk                  a response talks about being an assistant or about the task, not about what was asked
    refusal                    a response declines: which is better does not follow from the instructions
    echoes_instruction         a response repeats its own instruction
    lengths_apart              one response is many times as long: length alone would tell
    words_tell                 the better response has more of the instruction's words, and that of the mirror too (or
                               both have fewer): who counts words needs to judge neither

    contaminated_modified      the modified instruction shares text with a benchmark (`base.ngrams`)
    contaminated_response      a response does

The reasons from `modified_equals_original` to `adds_to_original` tell of one direction alone: where the same two
responses are a pair under the other instruction too (a mirror), that one is gated for itself.

How each is seen stands in `generation/pair_texts.py`; what costs a question to a model in
`generation/programs/asking.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

from ray_app.base.content_words import overlap_gap
from ray_app.base.ngrams import SHARED, Contamination, words
from ray_app.base.prompts import contents
from ray_app.base.schema import Text
from ray_app.generation.pair_texts import (
    adds_to,
    another_language,
    changed_sentence,
    echoes,
    is_instruction,
    is_meta_talk,
    is_refusal,
    length_ratio,
    offers_help,
    rephrases,
    similarity,
    talks_about_task,
)

NEAR_COPY = 0.9  # word trigrams that two responses share
CONTAMINATED, CONTAMINATED_RESPONSE = "contaminated_modified", "contaminated_response"


@dataclass(frozen=True)
class Gate:
    """Thresholds. Those that are None are not asked for."""

    max_similarity: float = 0.9  # of original and modified instruction, by word trigrams
    heuristics: bool = False  # the reasons from `nearly_equal_responses` to `echoes_instruction`
    max_length_ratio: float | None = None  # words of the longer response over those of the shorter
    beyond_words: bool = False  # no pair and mirror whose labels the instructions' words tell


def pair_fault(
    instruction: Text,
    modified: str | None,
    chosen: str,
    rejected: str,
    cut_off: list[str],
    gate: Gate,
    written: bool = True,
) -> str | None:
    """Why a pair is not made, or None. `modified` is what the rejected response answers, None where the strategy has no
    such; a generator has `written` it, or it is a real instruction. `cut_off` names answers that were too long for
    their token limit.
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
    if modified is not None and _near_copy(original, modified, gate):
        return "modified_equals_original"
    if gate.heuristics:
        # Only of two instructions: two answers to one question may differ in just the figure that is wrong.
        if modified is not None and similarity(chosen, rejected) >= NEAR_COPY:
            return "nearly_equal_responses"
        fault = (modified is not None and _instruction_fault(original, modified, written)) or (
            _response_fault(original, original, chosen) or _response_fault(original, modified or original, rejected)
        )
        if fault:
            return fault
    if gate.max_length_ratio is not None and length_ratio(chosen, rejected) > gate.max_length_ratio:
        return "lengths_apart"
    return None


def words_fault(gate: Gate, *pairs: tuple[Text, str, str]) -> str | None:
    """Why a pair and its mirror, each (instruction, chosen, rejected), would teach to count words, or None."""
    if not gate.beyond_words:
        return None
    gaps = [overlap_gap(contents(asked), *responses) for asked, *responses in pairs]
    return "words_tell" if min(gaps) > 0 or max(gaps) < 0 else None


def contamination_fault(known: Contamination | None, modified: str | None, *responses: str) -> str | None:
    """Why a pair shows what a benchmark asks, or None. `known`: the benchmarks, None where that is not asked for. Short
    prompts of theirs are looked for in the modified instruction alone: in a long text a few words stand by chance.
    """
    if known is None:
        return None
    if modified and known.matches(modified):
        return CONTAMINATED
    return CONTAMINATED_RESPONSE if any(known.fault(text) == SHARED for text in responses) else None


def _near_copy(original: str, modified: str, gate: Gate) -> bool:
    return similarity(original, modified) > gate.max_similarity and not changed_sentence(original, modified)


def _instruction_fault(original: str, modified: str, written: bool) -> str | None:
    if written and not is_instruction(original, modified):
        return "not_an_instruction"
    if written and another_language(original, modified):
        return "another_language"
    if rephrases(original, modified):
        return "rephrases_original"
    return "adds_to_original" if adds_to(original, modified) else None


def _response_fault(original: str, own: str, response: str) -> str | None:
    """`own` is the instruction that the response answers."""
    if is_meta_talk(response) or offers_help(response) or talks_about_task(f"{original} {own}", response):
        return "meta_talk"
    if is_refusal(response):
        return "refusal"
    return "echoes_instruction" if echoes(own, response) else None


def last_turn(instruction: Text) -> str:
    """What is asked: the last message of a conversation."""
    return instruction if isinstance(instruction, str) else instruction[-1]["content"]
