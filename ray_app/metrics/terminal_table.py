"""A summary in the terminal: figures with intervals, baselines, subsets. Plain where output is no tty.

    print_summary(summary)          to stdout, at the terminal's width
    text = to_text(summary, 80)     the same without colour, for a log or a file

Figures are percent. At 80 columns nothing wraps: long subset names end in an ellipsis.
"""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Iterator, Mapping
from typing import Any, TextIO

from rich import box
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

_LABELS = {
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
_COLUMNS = {
    "position_consistent_accuracy": ("both", "right in both orders"),
    "first_position_rate": ("first", "verdicts for the response shown first"),
    "length_baseline": ("longer", "what always taking the longer response scores"),
    "constant_baseline": ("A", "what always A scores"),
}
_PROTOCOLS = {"official": "one order a row"}  # by its own name it would call the figures official
_PLAIN_WIDTH = 100
_SUBSET_WIDTH = 30
# rich's own ASCII boxes spend four columns on vertical rules.
_PLAIN_BOX = box.Box("    \n    \n -- \n    \n    \n    \n    \n    \n", ascii=True)


def print_summary(summary: Mapping[str, Any], stream: TextIO | None = None) -> None:
    """Print to a stream; colours and the terminal's width only if it is a terminal."""
    out = sys.stdout if stream is None else stream
    if out.isatty():
        Console(file=out, force_terminal=True).print(render(summary))
    else:
        out.write(to_text(summary))


def to_text(summary: Mapping[str, Any], width: int = _PLAIN_WIDTH) -> str:
    """The plain text, lines at most `width` characters (80 or more) and without trailing blanks."""
    buffer = io.StringIO()
    Console(file=buffer, width=width, no_color=True, force_terminal=False).print(render(summary, plain=True))
    text = "\n".join(line.rstrip() for line in buffer.getvalue().splitlines())
    return re.sub(r"\n{3,}", "\n\n", text).rstrip() + "\n"


def render(summary: Mapping[str, Any], plain: bool = False) -> RenderableType:
    """A rich renderable; `plain` draws with ASCII."""
    head: list[RenderableType] = [
        _title(summary),
        _note("figures are percent of n, intervals are 95 % intervals by instruction"),
    ]
    if summary["kind"] == "rated":
        blocks = {"overall": summary["overall"], **summary["subsets"]}
        return Group(*head, *(_figures(name, block, plain) for name, block in blocks.items()), *_cost(summary, plain))
    if summary["kind"] == "best_of":
        return Group(*head, _best_of(summary, plain), *_cost(summary, plain))
    parts: list[RenderableType] = [*head, _figures("", summary["overall"], plain)]
    parts += [*_cost(summary, plain), *_special(summary, plain)]
    if summary["subsets"]:
        parts += _subsets(summary["subsets"], plain)
    if summary["length_gap_quartiles"]:
        spans = [(f"{row['from']:+d} to {row['to']:+d}", row) for row in summary["length_gap_quartiles"]]
        parts.append(_spans("length gap: gold longer by (characters)", spans, plain))
    if summary.get("similarity_thirds"):
        thirds = summary["similarity_thirds"]
        spans = [(f"{row['third']}: {row['from']:.2f} to {row['to']:.2f}", row) for row in thirds]
        parts.append(_spans("similarity of a pair's two instructions, thirds", spans, plain))
    return Group(*parts)


def percent(value: float | None) -> str:
    """`86.2`, or `-` for an undefined figure."""
    return "-" if value is None else f"{100 * value:.1f}"


def interval(estimate: Mapping[str, Any]) -> str:
    """`84.1-88.0`, or `-` where there is none."""
    low, high = estimate["low"], estimate["high"]
    return "-" if low is None or high is None else f"{percent(low)}-{percent(high)}"


def _title(summary: Mapping[str, Any]) -> Text:
    parts = [f"n = {summary['n']}"]
    parts.append(f"{summary['clusters']} instructions")
    if "protocol" in summary:
        parts.append(_PROTOCOLS.get(summary["protocol"], summary["protocol"].replace("_", " ")))
    if "parser" in summary:
        parts.append(f"parser {summary['parser']}")
    if summary.get("votes", 1) > 1:
        parts.append(f"{summary['votes']} votes")
    for name in ("quarantined", "dropped"):
        total = sum(summary.get(name, {}).values())
        if total:
            parts.append(f"{total} {name}")
    text = Text(summary["benchmark"], style="bold", overflow="ellipsis", no_wrap=True)
    text.append(f"  ({', '.join(parts)})", style="not bold")
    return text


def _note(text: str) -> Padding:
    return Padding(Text(text, style="dim"), (0, 1))


def _figures(title: str, block: Mapping[str, Any], plain: bool) -> Table:
    table = _table(plain)
    table.add_column(title or "overall", min_width=28, no_wrap=True, overflow="ellipsis")
    for name in ("%", "95 % interval", "n"):
        table.add_column(name, justify="right", no_wrap=True)
    for name, estimate in block.items():
        table.add_row(_LABELS.get(name, name), percent(estimate["value"]), interval(estimate), str(estimate["n"]))
    return table


def _cost(summary: Mapping[str, Any], plain: bool) -> Iterator[RenderableType]:
    """Seconds, tokens and price of 1,000 verdicts, where they were judged here."""
    found = summary.get("cost")
    if found is None:
        return
    table = _table(plain)
    table.add_column("cost", min_width=28, no_wrap=True, overflow="ellipsis")
    shown = [("seconds", "s"), ("prompt_tokens", "prompt tok"), ("completion_tokens", "new tok"), ("price", "price")]
    shown = [(name, header) for name, header in shown if name in found["per_1000"]]
    for _, header in shown:
        table.add_column(header, justify="right", no_wrap=True)
    table.add_row("of 1,000 verdicts", *(_amount(found["per_1000"][name]) for name, _ in shown))
    table.add_row(f"of these {found['verdicts']:,}", *(_amount(found.get(name)) for name, _ in shown))
    yield table
    yield from map(_note, found["notes"])


def _amount(value: float | None) -> str:
    """Three digits where there are no more before the point."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def _subsets(subsets: Mapping[str, Mapping[str, Any]], plain: bool) -> Iterator[RenderableType]:
    main = "vote_accuracy" if any("vote_accuracy" in b for b in subsets.values()) else "accuracy"
    shown = {name: column for name, column in _COLUMNS.items() if any(name in b for b in subsets.values())}
    table = _table(plain)
    # Only this column may shrink; its cells end in an ellipsis instead of wrapping.
    table.add_column("subset", max_width=_SUBSET_WIDTH)
    for header in ("n", "acc.", "95 % int.", *(header for header, _ in shown.values())):
        table.add_column(header, justify="right", no_wrap=True)
    for subset, block in subsets.items():
        found = block.get(main)
        cells = [percent(block[name]["value"]) if name in block else "-" for name in shown]
        value, bounds = (percent(found["value"]), interval(found)) if found else ("-", "-")
        label = Text(subset or "(none)", no_wrap=True, overflow="ellipsis")
        table.add_row(label, str(_rows(block)), value, bounds, *cells)
    yield table
    meanings = [("acc.", _LABELS[main]), *shown.values()]
    yield _note("; ".join(f"{header}: {meaning}" for header, meaning in meanings))


def _rows(block: Mapping[str, Any]) -> int:
    return max((estimate["n"] for estimate in block.values()), default=0)


def _spans(title: str, rows: list[tuple[str, Mapping[str, Any]]], plain: bool) -> Table:
    """Accuracy by spans of something that `title` names: (a span, its entry of the summary)."""
    table = _table(plain)
    for name in (title, "n", "acc.", "95 % int."):
        table.add_column(name, justify="right", no_wrap=True)
    for span, row in rows:
        found = row["accuracy"]
        table.add_row(span, str(found["n"]), percent(found["value"]), interval(found))
    return table


def _special(summary: Mapping[str, Any], plain: bool) -> Iterator[RenderableType]:
    if "rewardbench" in summary:
        yield _rewardbench(summary["rewardbench"], plain)
    for subset, block in summary.get("judgebench", {}).items():
        yield _figures(f"JudgeBench {subset}", block, plain)
    for name, title in (("mtbench", "MT-Bench"), ("llmbar", "LLMBar"), ("ppe", "PPE correctness")):
        if name in summary:
            yield _figures(title, summary[name], plain)
    if "rmbench" in summary:
        yield from _rmbench(summary["rmbench"], plain)
    if summary.get("calibration"):
        yield _calibration(summary["calibration"], plain)
    elif summary["votes_partial"]:
        yield _note("no calibration: voting stopped where the verdict was settled (--no-early_stop draws all votes)")
    if "compared" in summary:
        yield from _compared(summary["compared"], plain)
    if "human_agreement" in summary:
        agreement = {k: v for k, v in summary["human_agreement"].items() if isinstance(v, Mapping)}
        title = f"{summary['human_agreement']['pairs']} pairs, several votes"
        yield _figures(title, agreement, plain)


def _compared(found: Mapping[str, Any], plain: bool) -> Iterator[RenderableType]:
    runs = {"the other run": found["accuracy_a"], "this run": found["accuracy_b"]}
    table = _figures("against the other run", runs, plain)
    change, test = found["difference"], found["mcnemar"]
    low, high = change["low"], change["high"]
    bounds = "-" if low is None else f"{100 * low:+.1f} to {100 * high:+.1f}"
    table.add_row("difference", f"{100 * change['value']:+.1f}", bounds, str(change["n"]))
    discordant = test["a_better"] + test["b_better"]
    table.add_row("rows better : worse", "", f"{test['b_better']} : {test['a_better']}", str(discordant))
    table.add_row("McNemar's exact test of these", "", f"p = {test['p_value']:.3g}", str(discordant))
    yield table
    a, b = found["measures"]["a"], found["measures"]["b"]
    yield _note(f"accuracy of {a}" if a == b else f"the other run: accuracy of {a}; this run: of {b}")
    parsers = {run: name or "a parser that it does not name" for run, name in found.get("parsers", {}).items()}
    if len(set(parsers.values())) > 1:
        yield _note(
            f"verdicts are read by different parsers: the other run's by {parsers['a']}, this run's by {parsers['b']}"
        )
    yield _note(f"the other run: {found['with']}")


def _rewardbench(found: Mapping[str, Any], plain: bool) -> Table:
    table = _table(plain)
    title = "RewardBench" if found["complete"] else "RewardBench (not the whole set)"
    table.add_column(title, no_wrap=True, overflow="ellipsis")
    for name in ("n", "unparsed ½", "95 % int.", "unparsed wrong", "95 % int."):
        table.add_column(name, justify="right", no_wrap=True)
    for name, official in found["official"].items():
        wrong = found["unparsed_as_wrong"][name]
        cells = [c for e in (official, wrong) for c in (percent(e["value"]), interval(e))]
        table.add_row(name, str(official["n"]), *cells)
    return table


def _rmbench(found: Mapping[str, Any], plain: bool) -> Iterator[RenderableType]:
    yield _figures("RM-Bench" if found["complete"] else "RM-Bench (not the whole set)", found["figures"], plain)
    if not found["matrix"]:
        return
    table = _table(plain)
    table.add_column("chosen in style …", no_wrap=True)
    styles = list(dict.fromkeys(style for row in found["matrix"].values() for style in row))
    for style in styles:
        table.add_column(f"rejected {style}", justify="right", no_wrap=True)
    for chosen, row in found["matrix"].items():
        table.add_row(chosen, *(percent(row[style]["value"]) if style in row else "-" for style in styles))
    yield table


def _calibration(found: Mapping[str, Any], plain: bool) -> Table:
    ece = found["ece"]
    table = _table(plain)
    table.add_column("calibration: vote share", no_wrap=True)
    for name in ("n", "mean share", "acc."):
        table.add_column(name, justify="right", no_wrap=True)
    for row in found["bins"]:
        span = f"{percent(row['from'])} to {percent(row['to'])}"
        table.add_row(span, str(row["n"]), percent(row["share"]), percent(row["accuracy"]))
    table.add_row(f"calibration error (ECE): {percent(ece['value'])}, {interval(ece)}", str(ece["n"]), "", "")
    chance = found["if_calibrated"]
    table.add_row(f"  of a calibrated judge: {percent(chance['mean'])}, up to {percent(chance['p95'])}", "", "", "")
    return table


def _best_of(summary: Mapping[str, Any], plain: bool) -> Table:
    overall = {"overall: mean of the six subsets": summary["overall"]["score"]}
    figures = {**summary["subsets"], **overall, "unparsed_rate": summary["overall"]["unparsed_rate"]}
    return _figures("subset" if summary["complete"] else "subset (not the whole set)", figures, plain)


def _table(plain: bool) -> Table:
    return Table(box=_PLAIN_BOX if plain else box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
