"""What a set's verdicts cost: seconds, tokens and, where prices are given, money for 1,000 of them. Pure.

A verdict is what one pair (or best-of row) is judged to be: of all its orders, with all their votes. Rows that show the
same texts are one. Tokens are those of all attempts; every sample counts its prompt in full, whether or not an engine
had it in its cache. Seconds are wall time of attempts that ended, without the start of engines: of the share of the
questions that these attempts answered, by which the figures for 1,000 are scaled.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

HOUR, MILLION, PER = 3600.0, 1_000_000.0, 1000.0


@dataclass(frozen=True)
class Spent:
    """What was measured. `questions` are requests' units (an order of a row; pointwise: a row), `timed` those of them
    that attempts with known seconds answered; `gpu_seconds` is the sum over attempts of seconds x GPUs (None: unknown).
    """

    verdicts: int
    questions: int
    timed: int
    seconds: float
    start_seconds: float
    prompt_tokens: int
    completion_tokens: int
    gpu_seconds: float | None = None
    endpoint: bool = False


@dataclass(frozen=True)
class Prices:
    """Of a GPU's hour, or of a million tokens; None is unknown."""

    gpu_hour: float | None = None
    prompt_tokens: float | None = None
    completion_tokens: float | None = None


def cost(spent: Spent, prices: Prices | None = None) -> dict[str, Any]:
    """The summary's block: totals, and `per_1000` with None for what is not known. `price` is absent without prices."""
    share = spent.timed / spent.questions if spent.questions else 0.0
    timed_verdicts = spent.verdicts * share
    each: dict[str, float | None] = {
        "seconds": _per(spent.seconds, timed_verdicts),
        "prompt_tokens": _per(spent.prompt_tokens, spent.verdicts),
        "completion_tokens": _per(spent.completion_tokens, spent.verdicts),
    }
    told = _told(spent, share)
    if prices is not None and prices != Prices():
        each["price"], why = _price(spent, timed_verdicts, prices)
        told.append(why)
    return {
        "verdicts": spent.verdicts,
        "seconds": spent.seconds,
        "start_seconds": spent.start_seconds,
        "timed_share": share,
        "prompt_tokens": spent.prompt_tokens,
        "completion_tokens": spent.completion_tokens,
        "gpu_seconds": spent.gpu_seconds,
        "per_1000": each,
        "notes": told,
    }


def _price(spent: Spent, timed_verdicts: float, prices: Prices) -> tuple[float | None, str]:
    """(price of 1,000 verdicts, what it is of)."""
    if prices.gpu_hour is None:
        tokens = spent.prompt_tokens * (prices.prompt_tokens or 0) + spent.completion_tokens * (
            prices.completion_tokens or 0
        )
        return _per(tokens / MILLION, spent.verdicts), "price: of tokens, without discounts for cached prompts"
    if not spent.gpu_seconds:
        return None, "no price: the engines ran on no GPU, or no attempt that ended was timed"
    price = _per(spent.gpu_seconds / HOUR * prices.gpu_hour, timed_verdicts)
    return price, "price: of the engines' GPUs for these seconds, without their start"


def _told(spent: Spent, share: float) -> list[str]:
    """What a reader has to know of the seconds."""
    told = []
    if share < 1:
        told.append(f"seconds are of {100 * share:.0f} % of the questions: an attempt that was stopped is not timed")
    if spent.endpoint:
        told.append("seconds are those of an endpoint, which may serve others at the same time")
    return told


def _per(total: float, verdicts: float) -> float | None:
    return total / verdicts * PER if verdicts > 0 else None


def amount(value: float | None, missing: str = "-") -> str:
    """A cost as tables show it: three digits where there are no more before the point."""
    if value is None:
        return missing
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"
