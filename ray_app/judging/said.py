"""What judgments say besides their verdict: how much, how differently, and whether about these responses. Pure.

A judge that answers with bare verdicts, or with one phrase, explains nothing, however often it is right. A judgment
*tells its responses apart* where it holds a word of content that only one of the two has (`base.content_words`). What
it says of that word may still be nonsense. It *contradicts itself* where it calls the other response better than its
verdict names (`base.called_better`): then the verdict does not rest on what it says.
"""

from __future__ import annotations

import hashlib
import statistics
from array import array
from collections import Counter
from typing import Any

from ray_app.base.called_better import called_better
from ray_app.base.content_words import words_apart
from ray_app.base.ngrams import words
from ray_app.base.verdict import explanation, parse_verdict


class Said:
    """Counts over judgments; of a text it keeps 8 bytes."""

    def __init__(self) -> None:
        self.lengths: Counter[int] = Counter()
        self.phrases = array("Q")
        self.asked = self.telling = self.calling = self.contradicting = 0

    def see(self, text: str, responses: tuple[str, str] | None = None) -> None:
        """One judgment's whole text, and the two responses that it is about, where they are known."""
        told = explanation(text)
        said = words(told)
        self.lengths[len(said)] += 1
        if said:
            digest = hashlib.blake2b(" ".join(said).encode("utf-8", "surrogatepass"), digest_size=8).digest()
            self.phrases.append(int.from_bytes(digest))
        better, verdict = called_better(told), parse_verdict(text)
        if better and verdict:
            self.calling += 1
            self.contradicting += better != verdict
        if responses is not None:
            self.asked += 1
            self.telling += not words_apart(*responses).isdisjoint(said)

    def numbers(self) -> dict[str, Any]:
        """`distinct_explanations` is their share among those that say something, `telling_explanations` the share of
        all that tell the responses apart, `calling_explanations` the share of all that call a response better beside
        a verdict, and `contradicting_explanations` the share of these whose verdict names the other one.
        """
        count = self.lengths.total()
        found = {
            "explanation_words_median": statistics.median(self.lengths.elements()) if count else None,
            "bare_verdicts": self.lengths[0] / count if count else None,
            "distinct_explanations": len(set(self.phrases)) / len(self.phrases) if self.phrases else None,
            "calling_explanations": self.calling / count if count else None,
            "contradicting_explanations": self.contradicting / self.calling if self.calling else None,
        }
        return found | ({"telling_explanations": self.telling / self.asked} if self.asked else {})
