"""Words of content: what a text is about, without the grammar that holds it together. Pure.

The lists are English and short: what stands in nearly every text, and what judges say of any. In other languages nearly
every word counts as content.
"""

from __future__ import annotations

import functools

from ray_app.base.ngrams import words

LEAST_LETTERS = 3  # of an English word of content; figures count at any length
_GRAMMAR = """
a about above after again against all almost alone along already also although always am among an and another any
anyone anything are aren around as at away back be became because become been before behind being below between beyond
both but by can cannot could couldn did didn do does doesn doing don done down during each either else enough etc even
ever every everyone everything few for from further get gets getting go goes going got had hadn has hasn have haven
having he hence her here hers herself him himself his how however i if in indeed instead into is isn it its itself
just keep let like likely ll made make makes making many may maybe me might mine more most mostly much must my myself
nearly neither never no none nor not nothing now of off often on once one ones only onto or other others otherwise
ought our ours ourselves out over own per perhaps please put quite rather re really same say says see seem seems
several shall she should shouldn since so some someone something sometimes somewhere soon still such sure take takes
than that the their theirs them themselves then there therefore these they thing things this those though through
throughout thus to together too toward towards under unless until up upon us use used uses using usually ve very via
want was wasn way we well were weren what whatever when whenever where whereas wherever whether which while who
whoever whole whom whose why will with within without won would wouldn yes yet you your yours yourself yourselves
"""
# What judges say whatever they judge.
_JUDGING = """
accuracy accurate accurately answer answered answering answers appropriate asked asks assistant assistants based best
better choice choices choose chosen clear clearly compare compared complete concise conclusion correct correctly
decision detail detailed details ended error errors evaluate evaluation explanation explanations final following given
good helpful helpfulness impartial inaccurate incorrect incorrectly informative instruction instructions judge
judgement judgment length option options original prefer preferred previous prompt provide provided provides providing
quality question questions reason reasoning reasons relevance relevant respond responded response responses right
second sorry specific style user verdict verdicts worse worst wrong
"""
GRAMMAR = frozenset(words(_GRAMMAR))
JUDGING = frozenset(words(_JUDGING))


def content_words(text: str) -> frozenset[str]:
    """The words of content of a text, as `ngrams.words` makes them."""
    return frozenset(word for word in set(words(text)) - GRAMMAR if _counts(word))


@functools.lru_cache(maxsize=512)  # the judgments of a pair come close to each other
def words_apart(first: str, second: str) -> frozenset[str]:
    """The words of content that only one of two responses has, without those of judging itself."""
    return (content_words(first) ^ content_words(second)) - JUDGING


def overlap_gap(instruction: str, first: str, second: str) -> int:
    """By how many of the instruction's words of content the first response has more than the second."""
    asked = content_words(instruction)
    return len(asked & content_words(first)) - len(asked & content_words(second))


def _counts(word: str) -> bool:
    return len(word) >= LEAST_LETTERS or not word.isascii() or word.isdigit()
