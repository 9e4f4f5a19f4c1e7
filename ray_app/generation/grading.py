"""Is a response right, by a known answer? Pure. True, False, or None where it cannot be told.

    numeric   the number, fraction, percentage or formula that a response ends in equals the known one
              (math-verify, Hugging Face's grader of mathematical answers)
    exact     its final answer is the known one, word by word: a choice, a name

A wrong label is worse than a lost pair, so what is not plainly right or plainly wrong is neither: a response without a
final answer, or one whose final answer holds the known one beside others.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping

from ray_app.base.ngrams import words

Grader = Callable[[str, str], bool | None]  # (known answer, response)

LONGEST = 200  # characters of a final answer
SHORT = 12  # words of a response that is its own final answer
_BOXED = re.compile(r"\\boxed\s*\{((?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*)\}")
_MARKED = re.compile(
    r"####[ \t]*(\W{0,3}\d.*)|\banswer(?:[ \t]{1,3}is\b:?|[ \t]{0,3}\*{0,3}[ \t]{0,3}[:=])[ \t]*(\S.*)", re.IGNORECASE
)
_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?%?")
_HEDGED = re.compile(r"\bor\b", re.IGNORECASE)  # "17 or 18" is no answer
# What a final answer may hold: evaluating a tower of powers or a factorial would hold an engine up for ever, and
# nothing can stop it there. So there is a list of LaTeX's commands, and exponents have two digits at most.
_COMMANDS = re.compile(
    r"\\(?:[dt]?frac|sqrt|pi|cdot|times|div|left|right|text|textbf|mathrm|mathbf|boxed|pm|leq?|geq?|approx|circ|degree"
    r"|[%$,;:! ()\[\]{}])(?![a-z])"
)
_POWER = re.compile(r"(?:\^|\*\*)\s*(?:-?\d{1,2}|\{\s*-?\d{1,2}\s*\})(?![\d^*])")
_HEAVY = re.compile(r"\\|\^|\*\*|\d\s*!|\d{20}")
POWERS = 2
NUMBERS = 30  # of a response's end that are compared


def known_answer(text: str) -> str:
    """The known answer in an answer column: what stands behind GSM8K's `####`, in LaTeX's box, or all of it."""
    marked = text.rpartition("####")[2] if "####" in text else text
    boxed = _BOXED.findall(marked)
    return str(boxed[-1] if boxed else marked).strip()


def numeric(known: str, response: str) -> bool | None:
    """By math-verify, of the final answer: what is marked as such, or the last line with a number."""
    lines = [line for line in response.splitlines() if re.search(r"\d", line)]
    final, rest = marked_answer(response) or ((lines[-1], lines[-1]) if lines else ("", ""))
    wanted, found = _value(known), _value(final)
    if not wanted or not found or _HEDGED.search(final):
        return None
    if _equal(wanted, found):
        return True
    # "$18 a day for 7 days" ends in another number than its answer, and a part's answer is not the whole's.
    others = (_value(number) for number in dict.fromkeys(_NUMBER.findall(rest)[-NUMBERS:]))
    return None if any(other and _equal(wanted, other) for other in others) else False


def exact(known: str, response: str) -> bool | None:
    """By words, whatever their case and punctuation, of what is marked as the final answer; a short response is one."""
    wanted = words(known)
    whole = (response, response) if len(words(response)) <= SHORT else ("", "")
    final, rest = (words(part) for part in marked_answer(response) or whole)
    if not wanted or not final:
        return None
    if final == wanted:
        return True
    holds = any(rest[i : i + len(wanted)] == wanted for i in range(len(rest) - len(wanted) + 1))
    return None if holds else False


GRADERS: Mapping[str, Grader] = {"numeric": numeric, "exact": exact}


def marked_answer(response: str) -> tuple[str, str] | None:
    """(what a response marks as its answer, that and all behind it), the last time it does: a box, `#### 18`, "the
    answer is"; None where it marks none.
    """
    found = list(_BOXED.finditer(response)) or list(_MARKED.finditer(response))
    if not found:
        return None
    last = found[-1]
    marked = next(group for group in last.groups() if group is not None)
    return marked.strip().lstrip("*_` ").rstrip("*_`. "), response[last.start() :]


def evaluable(text: str) -> bool:
    """Whether evaluating `text` takes no time to speak of."""
    if len(text) > LONGEST:
        return False
    plain, powers = _POWER.subn(" ", _COMMANDS.sub(" ", text))
    return powers <= POWERS and not _HEAVY.search(plain)


def _value(text: str) -> list[object]:
    """What math-verify reads in a text; empty where that is nothing, or would take long to evaluate."""
    from math_verify import parse  # loads sympy, a second

    if not text or not evaluable(text):
        return []
    _quiet()
    # Its own time limits are signals, which only a process's main thread gets; hence `evaluable`.
    found: list[object] = parse(f"${text}$" if "\\" in text else text, parsing_timeout=None)
    return found


def _equal(wanted: list[object], found: list[object]) -> bool:
    from math_verify import verify

    return bool(verify(wanted, found, timeout_seconds=None))


def _quiet() -> None:
    """It warns, once a process, that its time limits are off."""
    logging.getLogger("math_verify").setLevel(logging.ERROR)
