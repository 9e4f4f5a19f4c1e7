"""What only the instruction can tell: pairs with a mirror, the same two responses under another instruction.

*Mirrored accuracy*: right in every order of a pair and of its mirror. Who looks at the responses alone is right in one
of the two at most, so scores 0, whatever in them it has learnt to prefer; a coin in both orders scores 1/16.
*Instruction sensitivity*: of mirrored pairs judged consistently, how often the winner changes with the instruction.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ray_app.metrics.bootstrap import Ratio
from ray_app.metrics.outcome import Outcome


def mirrored_accuracy(outcomes: Sequence[Outcome]) -> Ratio:
    """Over mirrored pairs; both rows of one count once, with the first of them."""
    found = {one.id: one.score() == 1 and other.score() == 1 for one, other in mirrors(outcomes)}
    return _of(outcomes, found)


def instruction_sensitivity(outcomes: Sequence[Outcome]) -> Ratio:
    """Over mirrored pairs whose two rows have a winner each."""
    found = {}
    for one, other in mirrors(outcomes):
        winners = [_won(outcome) for outcome in (one, other)]
        if None not in winners:
            # The better one of a pair is the worse one of its mirror: two verdicts that are both right, or both wrong,
            # name different responses.
            found[one.id] = winners[0] == winners[1]
    return _of(outcomes, found)


def mirrors(outcomes: Sequence[Outcome]) -> Iterator[tuple[Outcome, Outcome]]:
    """Couples of rows that mirror each other, each once. A row whose mirror was not judged is left out."""
    by_id = {outcome.id: outcome for outcome in outcomes}
    for outcome in outcomes:
        other = by_id.get(outcome.mirror or "")
        if other is not None and other.mirror == outcome.id and outcome.id < other.id:
            yield outcome, other


def _won(outcome: Outcome) -> bool | None:
    """Whether the better response won; None where no response did."""
    final = outcome.final()
    return None if final is None or outcome.label is None else final == outcome.label


def _of(outcomes: Sequence[Outcome], found: dict[str, bool]) -> Ratio:
    return Ratio.of(
        [float(found.get(outcome.id, False)) for outcome in outcomes],
        [float(outcome.id in found) for outcome in outcomes],
    )
