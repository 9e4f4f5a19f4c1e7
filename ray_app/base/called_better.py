"""Which response a judgment calls the better one in its own words. Pure.

A judgment that says "the second response is the better one" and ends with `[[A]]` is no explanation of its verdict: its
reader is told the opposite. The phrases are English; of other languages nothing is said.
"""

from __future__ import annotations

import re

_SIDES = {"first": "A", "second": "B", "a": "A", "b": "B"}
_RESPONSE = r"(?:response|answer|option|assistant)"
_WHICH = (
    rf"(?:(?P<place>first|second) (?:{_RESPONSE}|one)|{_RESPONSE} [\"'(\[*]{{0,3}}(?P<letter>[ab])\b[\"')\]*]{{0,3}})"
)
_HOW = r"(?:(?:the|a|an|also|clearly|much|far|slightly|indeed|actually|still|overall|therefore|thus) ){0,3}"
_BETTER = r"(?P<better>better|best|superior|preferable|preferred|stronger)"
_WORSE = r"(?:worse|worst|inferior|weaker)"
# "is not better" and "is no better" match nothing: they call neither response the better one for certain. Nor does
# "neither A nor B is better".
_CALLED = re.compile(
    rf"(?<!nor )\b{_WHICH} (?:is|was|seems|appears) (?:to be )?{_HOW}(?:{_BETTER}|{_WORSE})\b", re.IGNORECASE
)


def called_better(text: str) -> str | None:
    """`A` for the response shown first, `B` for the other; None where a text calls neither better or worse. The last
    such phrase holds: what stands before it may have weighed one merit.
    """
    phrases = list(_CALLED.finditer(text))
    if not phrases:
        return None
    found = phrases[-1]
    side = _SIDES[(found["place"] or found["letter"]).lower()]
    return side if found["better"] else "B" if side == "A" else "A"
