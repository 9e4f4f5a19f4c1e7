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

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from ray_app.metrics.cost import amount
from ray_app.metrics.table_parts import LABELS, figure_table, interval, new_table, note, percent

_COLUMNS = {
    "position_consistent_accuracy": ("both", "right in both orders"),
    "first_position_rate": ("first", "verdicts for the response shown first"),
    "length_baseline": ("longer", "what always taking the longer response scores"),
    "overlap_baseline": ("words", "what always taking the one with more of the instruction's words scores"),
    "constant_baseline": ("A", "what always A scores"),
}
_PROTOCOLS = {"official": "one order a row"}  # by its own name it would call the figures official
_PLAIN_WIDTH = 100
_SUBSET_WIDTH = 30


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
        note("figures are percent of n, intervals are 95 % intervals by instruction"),
    ]
    if summary["kind"] == "rated":
        blocks = {"overall": summary["overall"], **summary["subsets"]}
        return Group(
            *head, *(figure_table(name, block, plain) for name, block in blocks.items()), *_cost(summary, plain)
        )
    if summary["kind"] == "best_of":
        return Group(*head, _best_of(summary, plain), *_cost(summary, plain))
    parts: list[RenderableType] = [*head, figure_table("", summary["overall"], plain)]
    parts += [*_said(summary), *_cost(summary, plain), *_special(summary, plain)]
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


def _said(summary: Mapping[str, Any]) -> Iterator[RenderableType]:
    """What the judgments say besides their verdicts, where they were made here."""
    found = summary.get("explanations")
    if found is None or found["bare_verdicts"] is None:
        return
    shares = [f"{percent(found['bare_verdicts'])} % are a bare verdict"]
    if found["distinct_explanations"] is not None:
        shares.append(f"{percent(found['distinct_explanations'])} % of the others are distinct")
    shares.append(
        f"{percent(found['telling_explanations'])} % tell the responses apart (a word of content of one alone)"
    )
    if found.get("contradicting_explanations") is not None:
        calling, against = (percent(found[f"{name}_explanations"]) for name in ("calling", "contradicting"))
        shares.append(f"{calling} % call a response better, and {against} % of these then name the other")
    yield note(f"judgments: {found['explanation_words_median']:g} words (median); {'; '.join(shares)}")


def _cost(summary: Mapping[str, Any], plain: bool) -> Iterator[RenderableType]:
    """Seconds, tokens and price of 1,000 verdicts, where they were judged here."""
    found = summary.get("cost")
    if found is None:
        return
    table = new_table(plain)
    table.add_column("cost", min_width=28, no_wrap=True, overflow="ellipsis")
    shown = [("seconds", "s"), ("prompt_tokens", "prompt tok"), ("completion_tokens", "new tok"), ("price", "price")]
    shown = [(name, header) for name, header in shown if name in found["per_1000"]]
    for _, header in shown:
        table.add_column(header, justify="right", no_wrap=True)
    table.add_row("of 1,000 verdicts", *(amount(found["per_1000"][name]) for name, _ in shown))
    table.add_row(f"of these {found['verdicts']:,}", *(amount(found.get(name)) for name, _ in shown))
    yield table
    yield from map(note, found["notes"])


def _subsets(subsets: Mapping[str, Mapping[str, Any]], plain: bool) -> Iterator[RenderableType]:
    main = "vote_accuracy" if any("vote_accuracy" in b for b in subsets.values()) else "accuracy"
    shown = {name: column for name, column in _COLUMNS.items() if any(name in b for b in subsets.values())}
    table = new_table(plain)
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
    meanings = [("acc.", LABELS[main]), *shown.values()]
    yield note("; ".join(f"{header}: {meaning}" for header, meaning in meanings))


def _rows(block: Mapping[str, Any]) -> int:
    return max((estimate["n"] for estimate in block.values()), default=0)


def _spans(title: str, rows: list[tuple[str, Mapping[str, Any]]], plain: bool) -> Table:
    """Accuracy by spans of something that `title` names: (a span, its entry of the summary)."""
    table = new_table(plain)
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
        yield figure_table(f"JudgeBench {subset}", block, plain)
    for name, title in (("mtbench", "MT-Bench"), ("llmbar", "LLMBar"), ("ppe", "PPE correctness")):
        if name in summary:
            yield figure_table(title, summary[name], plain)
    if "rmbench" in summary:
        yield from _rmbench(summary["rmbench"], plain)
    if summary.get("calibration"):
        yield _calibration(summary["calibration"], plain)
    elif summary["votes_partial"]:
        yield note("no calibration: voting stopped where the verdict was settled (--no-early_stop draws all votes)")
    if "compared" in summary:
        yield from _compared(summary["compared"], plain)
    if "human_agreement" in summary:
        agreement = {k: v for k, v in summary["human_agreement"].items() if isinstance(v, Mapping)}
        title = f"{summary['human_agreement']['pairs']} pairs, several votes"
        yield figure_table(title, agreement, plain)


def _compared(found: Mapping[str, Any], plain: bool) -> Iterator[RenderableType]:
    runs = {"the other run": found["accuracy_a"], "this run": found["accuracy_b"]}
    table = figure_table("against the other run", runs, plain)
    change, test = found["difference"], found["mcnemar"]
    low, high = change["low"], change["high"]
    bounds = "-" if low is None else f"{100 * low:+.1f} to {100 * high:+.1f}"
    table.add_row("difference", f"{100 * change['value']:+.1f}", bounds, str(change["n"]))
    discordant = test["a_better"] + test["b_better"]
    table.add_row("instructions better : worse", "", f"{test['b_better']} : {test['a_better']}", str(discordant))
    table.add_row("exact sign test of these", "", f"p = {test['p_value']:.3g}", str(discordant))
    yield table
    a, b = found["measures"]["a"], found["measures"]["b"]
    yield note(f"accuracy of {a}" if a == b else f"the other run: accuracy of {a}; this run: of {b}")
    parsers = {run: name or "a parser that it does not name" for run, name in found.get("parsers", {}).items()}
    if len(set(parsers.values())) > 1:
        yield note(
            f"verdicts are read by different parsers: the other run's by {parsers['a']}, this run's by {parsers['b']}"
        )
    yield note(f"the other run: {found['with']}")


def _rewardbench(found: Mapping[str, Any], plain: bool) -> Table:
    table = new_table(plain)
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
    yield figure_table("RM-Bench" if found["complete"] else "RM-Bench (not the whole set)", found["figures"], plain)
    if not found["matrix"]:
        return
    table = new_table(plain)
    table.add_column("chosen in style …", no_wrap=True)
    styles = list(dict.fromkeys(style for row in found["matrix"].values() for style in row))
    for style in styles:
        table.add_column(f"rejected {style}", justify="right", no_wrap=True)
    for chosen, row in found["matrix"].items():
        table.add_row(chosen, *(percent(row[style]["value"]) if style in row else "-" for style in styles))
    yield table


def _calibration(found: Mapping[str, Any], plain: bool) -> Table:
    ece = found["ece"]
    table = new_table(plain)
    table.add_column("calibration: vote share", no_wrap=True)
    for name in ("n", "mean share", "acc."):
        table.add_column(name, justify="right", no_wrap=True)
    for row in found["bins"]:
        span = f"{percent(row['from'])} to {percent(row['to'])}"
        table.add_row(span, str(row["n"]), percent(row["share"]), percent(row["accuracy"]))
    table.add_row(f"calibration error (ECE): {percent(ece['value'])}", str(ece["n"]), "", "")
    chance = found["if_calibrated"]
    table.add_row(f"  of a calibrated judge: {percent(chance['mean'])}, up to {percent(chance['p95'])}", "", "", "")
    return table


def _best_of(summary: Mapping[str, Any], plain: bool) -> Table:
    overall = {"overall: mean of the six subsets": summary["overall"]["score"]}
    figures = {**summary["subsets"], **overall, "unparsed_rate": summary["overall"]["unparsed_rate"]}
    return figure_table("subset" if summary["complete"] else "subset (not the whole set)", figures, plain)
