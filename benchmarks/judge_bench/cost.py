"""What until-correct sampling is expected to cost, from an `all` run. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

Row = tuple[str, str, int, bool, int]  # pair_id, order, sample, correct, completion tokens


def expected_tokens(everything: Iterable[Row]) -> float:
    """Σ over (pair, order) of E[tokens until the first correct sample, at most N], from all N samples of each.

    Samples of a unit are exchangeable: of N with c correct, each wrong one comes before all correct ones with
    probability 1/(c + 1), and each correct one is the first with 1/c. The mean over all orders is thus unbiased
    for design §7's E[min(Geom(p), N)]·L, which with an estimated p is not.
    """
    units: dict[tuple[str, str], list[tuple[bool, int]]] = defaultdict(list)
    for pair, order, _, correct, tokens in everything:
        units[pair, order].append((correct, tokens))
    total = 0.0
    for samples in units.values():
        right = sum(correct for correct, _ in samples)
        total += sum(tokens / (right if correct else right + 1) for correct, tokens in samples)
    return total


def plug_in_tokens(everything: Iterable[Row], n: int) -> float:
    """Design §7's sum with the measured pass rate and mean length of each (pair, order) put in."""
    units: dict[tuple[str, str], list[tuple[bool, int]]] = defaultdict(list)
    for pair, order, _, correct, tokens in everything:
        units[pair, order].append((correct, tokens))
    total = 0.0
    for samples in units.values():
        p = sum(correct for correct, _ in samples) / len(samples)
        length = sum(tokens for _, tokens in samples) / len(samples)
        total += ((1 - (1 - p) ** n) / p if p else n) * length
    return total


def kept(rows: Iterable[Row]) -> int:
    """(pair, order) with a correct sample."""
    return len({(pair, order) for pair, order, _, correct, _ in rows if correct})
