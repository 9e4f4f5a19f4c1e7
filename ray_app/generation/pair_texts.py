"""What is seen in the texts of a pair without asking a model: their form, what they repeat, whom they talk about. Pure.

The patterns are English, and come from pairs that were read one by one (docs/results.md). Where the original
instruction is not in a form that they know, they say nothing about the modified one.
"""

from __future__ import annotations

import functools
import re
from typing import Any

from ray_app.base.ngrams import words

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
# An offer of help may stand at the end of a good answer too: it counts among the first words alone.
_OFFER = re.compile(
    r"\bi(?:['’]m| am| was)(?: \w+){0,3} (?:here|ready|happy|glad|pleased|delighted|excited|eager|able|designed)"
    r"(?: and \w+)? to (?:\w+ )?(?:help|assist|support)"
    r"|\bi(?:['’]ll|['’]d| will| would)(?: \w+)? be (?:happy|glad|pleased|delighted) to (?:help|assist)"
    r"|\b(?:how|what) (?:can|may) i (?:help|assist|do for you)"
    r"|\bwhat(?: do you (?:want|need)| would you like to know"
    r"|(?:['’]s| is) (?:the|your) (?:question|task|request))\W*\?"
    r"|\b(?:i(?:['’]m| am)|as|you are) (?:just )?an? (?:\w+,? ){0,3}(?:ai|assistant|chatbot|language model)\b",
    re.IGNORECASE,
)
_FIRST_WORDS = re.compile(r"(?:\s*\S+){0,50}")
# Words of the task that was set (modify_instruction.yaml), which belong into neither an instruction nor an answer.
_TASK = re.compile(
    r"\b(?:original|new|modified|previous|revised|rewritten|given|requested|corrected|correct|perfect|different|existing"
    r"|alternative|specified) (?:instruction|response)s?\b"
    r"|\b(?:an?|the|this|your) instruction(?: provided| given)? (?:above|below|is|was|to|should|must|asks|states"
    r"|needs|has)\b"
    r"|\bchange what is asked\b|\bchang\w* the (?:wording|instruction)\b",
    re.IGNORECASE,
)
_OF_TASKS = re.compile(r"\b(?:instruct\w*|prompts?|responses?)\b", re.IGNORECASE)
_NO_INSTRUCTION = re.compile(
    r"^\W*(?:here(?:['’]s| is| are) (?:a|an|the|my|some)\b|sure\b[,!.]|certainly\b[,!.]"
    r"|the (?:new|modified) instruction\b|(?:this|the) (?:new |modified )?instruction (?:is|asks|has)\b)"
    r"|\b(?:the|correct|right) answer(?: to [^.?]{1,60})?(?: is\b|:)",
    re.IGNORECASE,
)
_VERBS = (
    "act add advise analy[sz]e answer arrange assess assume brainstorm build calculate categori[sz]e change check "
    "choose classify code come compare complete compose compute consider construct continue convert correct count "
    "craft create critique debug decide define demonstrate derive describe design detail determine develop devise "
    "differentiate discuss do draft draw edit elaborate estimate evaluate examine expand explain extract fill "
    "find finish fix format formulate generate get give guess help highlight identify illustrate imagine "
    "implement improve include invent label list make mention modify name optimi[sz]e organi[sz]e outline "
    "paraphrase perform pick plan predict prepare present produce propose prove provide rank rate read recommend "
    "refactor rephrase replace reply report respond review revise rewrite rework say select share show simplify "
    "sketch solve sort speak specify spell state suggest summari[sz]e talk tell think track translate try turn "
    "use verify write"
)
_ASKS = re.compile(
    r"[?？؟]|(?:^|[.!:;\n,])[\W_\d]*(?:(?:please|kindly|now|then|next|also|first|finally|and|just|pls|hi|hello)[\s,]+)*"
    rf"(?:(?:{'|'.join(_VERBS.split())}|what|what['’]s|who|whose|why|how)\b"
    r"|(?:when|where|which|is|are|can|could|does|do|did|will|would|should) (?:is|are|was|were|do|does|did|can|will"
    r"|should|has|have|you|i|we|it|he|she|they|there|the|a|an)\b)"
    r"|\b(?:i|we)(?: would|['’]d)? (?:want|need|like|am looking|wish|have to|am trying)\b|\byour (?:task|job|goal)\b"
    r"|\byou (?:are|should|must|will|have) (?:to|an?|now|going)\b",
    re.IGNORECASE,
)
# Words that may change without changing what is asked. When, where, who, why and how do change it; so does "not".
_FREE_WORDS = (
    "a an the is are was were be been am do does did can could would should will shall may might there here of in "
    "on at to for from by with and or that this these those it its i you your my me we us please tell give "
    "provide explain show question questions answer correct following what which s re"
)
_FREE = frozenset(_FREE_WORDS.split())
NEW_WORDS = 5  # in a row that the original does not have: a changed sentence
ECHO = 0.8  # share of a response's word trigrams that stand in its own instruction
SURE = 0.9  # of a language; of 4,041 public prompts six were told apart wrongly from there on, none of them prose
NO_LANGUAGE = "zxx"  # ISO 639: what py3langid says of code


def is_meta_talk(response: str) -> bool:
    """Whether a response begins by talking about being an assistant, or by asking for the instruction."""
    return _META.match(response) is not None


def offers_help(response: str) -> bool:
    """Whether an offer of help, or "I'm an AI", stands among the first 50 words of a response."""
    first = _FIRST_WORDS.match(response)
    return first is not None and _OFFER.search(first[0]) is not None


def is_refusal(response: str) -> bool:
    """Whether a response begins by declining."""
    return _REFUSAL.match(response) is not None


def talks_about_task(original: str, text: str) -> bool:
    """Whether a text talks about writing another instruction, where the original is about nothing of the kind."""
    return _TASK.search(text) is not None and _OF_TASKS.search(original) is None


def asks(text: str) -> bool:
    """Whether a text asks for something in a form that is known here: a question, a request, a task."""
    return _ASKS.search(text) is not None


def is_instruction(original: str, modified: str) -> bool:
    """Whether a modified instruction may be one. It must ask for something only where the original is seen to, and
    where it is not plainly of a language whose forms are unknown here.
    """
    if _NO_INSTRUCTION.search(modified) and not _NO_INSTRUCTION.search(original):
        return False
    if talks_about_task(original, modified):
        return False
    return asks(modified) or not asks(original) or language_of(modified) not in (None, "en")


def adds_to(original: str, modified: str) -> bool:
    """Whether `modified` holds the whole of `original`, and besides it no more words than it has, or nothing that asks:
    its answer would mostly answer the original too. A long prompt of which a sentence was changed is none.
    """
    before, found, after = modified.casefold().partition(original.casefold().strip())
    if found.strip() and (words(before) or words(after)) and asks(original) and not (asks(before) or asks(after)):
        return True
    first, second = words(original), words(modified)
    if not first or not len(first) < len(second) <= 2 * len(first) + 5:
        return False
    return any(second[at : at + len(first)] == first for at in range(len(second) - len(first) + 1))


def rephrases(original: str, modified: str) -> bool:
    """Whether both have the same words, in whatever order and number, besides those that may change without changing
    what is asked. So a changed number, name, question word or "not" is no rephrasing, a synonym is not seen as one.
    """
    first, second = _content(original), _content(modified)
    return bool(first) and first == second


def _content(text: str) -> frozenset[str]:
    """Words that tell what is asked, plurals as their singulars."""
    return frozenset(word.removesuffix("s") if len(word) > 3 else word for word in words(text) if word not in _FREE)


def changed_sentence(original: str, modified: str) -> bool:
    """Whether `modified` has `NEW_WORDS` words in a row that `original` has not. Alike as the two may be by the share
    of their words, in a long prompt that is a sentence, and asks for something else.
    """
    before, after = words(original), words(modified)
    known, grams = set(_grams(before)), _grams(after)
    run = 0
    for at, gram in enumerate(grams):
        run = 0 if gram in known else run + 1
        # Trigrams of a run reach two words into what stands around it, but for the text's own ends.
        if run >= NEW_WORDS + 2 or (run >= NEW_WORDS and (run == at + 1 or at == len(grams) - 1)):
            return True
    return False


def echoes(instruction: str, response: str) -> bool:
    """Whether a response only repeats its own instruction, or most of it. A passage quoted from a long one is none."""
    asked, said = words(instruction), words(response)
    if len(said) < 3 or len(said) * 4 < len(asked):
        return False
    known = set(_grams(asked))
    found = [gram in known for gram in _grams(said)]
    return sum(found) >= ECHO * len(found)


def similarity(a: str, b: str) -> float:
    """Jaccard similarity of word trigrams, in [0, 1]; texts under three words are compared as word sets."""
    first, second = words(a), words(b)
    size = min(3, len(first), len(second)) or 1
    grams_a, grams_b = set(_grams(first, size)), set(_grams(second, size))
    union = grams_a | grams_b
    return len(grams_a & grams_b) / len(union) if union else 1.0


def _grams(found: list[str], size: int = 3) -> list[tuple[str, ...]]:
    """Every `size` words that stand in a row."""
    return [tuple(found[at : at + size]) for at in range(len(found) - size + 1)]


def length_ratio(a: str, b: str) -> float:
    """Words of the longer over words of the shorter text; at least 1."""
    first, second = len(words(a)) or 1, len(words(b)) or 1
    return max(first, second) / min(first, second)


def language_of(text: str) -> str | None:
    """The ISO 639 code of a text's language, by py3langid; None where it is not plain, or no language."""
    language, probability = _identifier().classify(text)
    return str(language) if probability >= SURE and language != NO_LANGUAGE else None


@functools.lru_cache(maxsize=1)
def _identifier() -> Any:
    from py3langid import langid  # a second, which only those pay who look at pairs

    return langid.LanguageIdentifier.from_model_file(langid.MODEL_FILE, norm_probs=True)


def another_language(original: str, modified: str) -> bool:
    """Whether both are plainly of one language, and not of the same."""
    first, second = language_of(original), language_of(modified)
    return first is not None and second is not None and first != second
