"""What every table of a summary is made of: names of figures, percent, intervals, columns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich import box
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

LABELS = {
    "accuracy": "accuracy, unparsed = wrong",
    "accuracy_unparsed_half": "accuracy, unparsed = ½",
    "vote_accuracy": "vote accuracy, unparsed = wrong",
    "vote_accuracy_unparsed_half": "vote accuracy, unparsed = ½",
    "position_consistent_accuracy": "right in both orders",
    "inconsistent_rate": "orders contradict",
    "first_position_rate": "verdicts for the first shown",
    "unparsed_rate": "unparsed verdicts",
    "unparsed_vote_rate": "unparsed votes",
    "mirrored_accuracy": "right in both orders, and of the mirror",
    "instruction_sensitivity": "winner changes with the instruction",
    "length_baseline": "baseline: always the longer",
    "beyond_longer": "above always the longer, points",
    "overlap_baseline": "baseline: more words of the instruction",
    "beyond_overlap": "above more words, points",
    "accuracy_against_overlap": "accuracy where the words mislead",
    "constant_baseline": "baseline: always A",
    "adversarial": "mean of adversarial subsets",
    "average": "mean of subsets",
    "net_agreement": "net agreement, unparsed = 0",
    "both_orders": "right in both orders",
    "agreement": "agreement with human votes",
    "coverage": "votes with a verdict",
    "human_human": "humans among themselves",
    "pearson": "Pearson's r × 100",
    "spearman": "Spearman's rho × 100",
    "kendall": "Kendall's tau-b × 100",
    "length_spearman": "baseline: rho × 100 of the length",
    "judge_single_vote": "κ × 100: judge, single vote",
    "judge_majority": "κ × 100: judge, majority",
}
# rich's own ASCII boxes spend four columns on vertical rules.
_PLAIN_BOX = box.Box("    \n    \n -- \n    \n    \n    \n    \n    \n", ascii=True)


def percent(value: float | None) -> str:
    """`86.2`, or `-` for an undefined figure."""
    return "-" if value is None else f"{100 * value:.1f}"


def interval(estimate: Mapping[str, Any]) -> str:
    """`84.1-88.0` (of a difference `-4.1 to 2.0`), or `-` where there is none."""
    low, high = estimate["low"], estimate["high"]
    if low is None or high is None:
        return "-"
    return f"{percent(low)} to {percent(high)}" if low < 0 else f"{percent(low)}-{percent(high)}"


def note(text: str) -> Padding:
    """A line below a table."""
    return Padding(Text(text, style="dim"), (0, 1))


def figure_table(title: str, block: Mapping[str, Any], plain: bool) -> Table:
    """Figures by name, each with its interval and its rows."""
    table = new_table(plain)
    table.add_column(title or "overall", min_width=28, no_wrap=True, overflow="ellipsis")
    for name in ("%", "95 % interval", "n"):
        table.add_column(name, justify="right", no_wrap=True)
    for name, estimate in block.items():
        table.add_row(LABELS.get(name, name), percent(estimate["value"]), interval(estimate), str(estimate["n"]))
    return table


def new_table(plain: bool) -> Table:
    """Without columns; `plain` draws with ASCII."""
    return Table(box=_PLAIN_BOX if plain else box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
