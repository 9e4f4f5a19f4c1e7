"""The tables at the end of a run: one line an iteration and set, what each iteration changed, one line a stage.

Read from committed stages only. Figures are percent; accuracy counts unparsed as wrong.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from ray_app.loop.run_rows import before_all, iteration_rows, notes, row_of
from ray_app.loop.stages.evaluation import BASELINE, FIRST_JUDGE
from ray_app.loop.stages.inputs import VALIDATION
from ray_app.metrics.cost import amount
from ray_app.metrics.similarity import THIRDS
from ray_app.run.folder import parts_of

TIGHT: dict[str, Any] = {"padding": (0, 1, 0, 0), "pad_edge": False, "show_edge": False}  # 80 columns are enough
CLOSE: dict[str, Any] = {**TIGHT, "padding": 0}
# Beside an accuracy and its rows: right in both orders, no verdict, and what always the longer one scores.
BESIDE = {"position_consistent_accuracy": "both", "unparsed_rate": "unp.", "length_baseline": "longer"}
# Of pairs with a mirror: right in both orders of both, and how often the winner changes with the instruction (of those
# that are judged consistently).
OF_MIRRORS = {"mirrored_accuracy": "right of both", "instruction_sensitivity": "winner changes"}
SAID = ("bare_verdicts", "distinct_explanations", "telling_explanations", "contradicting_explanations")
LEAST_TOLD_S = 0.5  # of a cause of idleness in the table
COIN = 0.5  # what it scores of answers that have a verdict now and had none
PART = 0.25  # of a change, from which on it is told that so much of it may be form
WORK = ("instructions", "pairs", "judgments", "train_set", "training", "evaluation", FIRST_JUDGE, BASELINE)


def show(metrics: list[dict[str, Any]], console: Console | None = None) -> None:
    """Print the tables."""
    console = console or Console(soft_wrap=False)
    rows = iteration_rows(metrics)
    console.print(_iterations(rows, notes(rows, metrics)))
    if any(_mirrored(headline) for row in rows for headline in row["sets"].values()):
        console.print(_of_mirrors(rows))
    if any(_thirds(headline) for row in rows for headline in row["sets"].values()):
        console.print(_by_similarity(rows))
    if any(row.get("trained_by_letter") is not None for row in rows):
        console.print(_training_sets(rows))
    if any(row.get("said") for row in rows):
        console.print(_said(rows))
    if any(row["changes"] for row in rows):
        console.print(_changes(rows))
    if any(row.get("per_1000") for row in rows):
        console.print(_cost(rows))
    console.print(_stages(metrics))
    if any("device_time" in row for row in rows):
        console.print(_device_time([before_all(metrics), *rows]))


def show_alarms(alarms: list[dict[str, Any]], console: Console | None = None) -> None:
    """Print what the run's figures warn of, where there is any."""
    if not alarms:
        return
    title = "Alarms (rows and advice: report.html)"
    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", **TIGHT)
    table.add_column("iter", justify="right", no_wrap=True)
    table.add_column("alarm", no_wrap=True)
    table.add_column("what")
    for alarm in alarms:
        iteration = "-" if alarm["iteration"] is None else f"{alarm['iteration']}{alarm.get('phase', '')}"
        table.add_row(iteration, alarm["name"].replace("_", " "), alarm["message"])
    (console or Console(soft_wrap=False)).print(table)


def _iterations(rows: list[dict[str, Any]], said: list[str]) -> Table:
    first = "first is the first judge, " if rows and rows[0]["iteration"] == "first" else ""
    table = Table(
        title=f"Iterations ({first}0 is the seed model; %)",
        caption="\n".join(said) or None,
        box=box.SIMPLE_HEAD,
        title_justify="left",
        caption_justify="left",
        **CLOSE,
    )
    for name in ("iter", "pairs", "pass", "keep", "unp."):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("set", no_wrap=True)
    for name in ("accuracy [95 %]", "n", *BESIDE.values()):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        cells = [str(row["iteration"]), _whole(row.get("pairs"))]
        cells += [_percent(row.get(name)) for name in ("pass_rate", "keep_rate", "unparsed_rate")]
        sets = row["sets"] or {"-": None}
        for name, headline in sets.items():
            marked = name + "*" * (name == VALIDATION and row.get("selected", False))
            table.add_row(*cells, marked, *_set_cells(headline))
            cells = [""] * len(cells)
    return table


def _training_sets(rows: list[dict[str, Any]]) -> Table:
    """What was trained on: letters, and what its judgments say besides their verdict."""
    title = "Training sets (words: median besides the verdict; distinct: of what is said)"
    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", **TIGHT)
    for name in ("iter", "rows", "A", "B", "lost", "words", "bare %", "distinct %"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        letters = row.get("trained_by_letter")
        if letters is not None:
            counts = [_whole(value) for value in (row["rows"], letters.get("A"), letters.get("B"), row["lost"])]
            shares = [_rate(row.get(name)) for name in ("bare_verdicts", "distinct_explanations")]
            table.add_row(str(row["iteration"]), *counts, _whole(row.get("explanation_words_median")), *shares)
    return table


def _of_sets(title: str, figures: Sequence[str], caption: str | None = None) -> Table:
    """A table of iterations and sets, without rows."""
    table = Table(
        title=title, caption=caption, caption_justify="left", box=box.SIMPLE_HEAD, title_justify="left", **TIGHT
    )
    table.add_column("iter", justify="right")
    table.add_column("set", no_wrap=True)
    for name in figures:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _said(rows: list[dict[str, Any]]) -> Table:
    """What a judge says besides its verdict where it is evaluated: of its training set it knows the answers."""
    title = "Judgments of an evaluation (words: median; names: says a word of content of one alone)"
    caption = "against: of those that call a response better, how many then name the other"
    table = _of_sets(title, ("words", "bare %", "distinct %", "names %", "against %"), caption)
    for row in rows:
        said: Mapping[str, Any] = row.get("said") or {}
        for chosen in sorted(said, key=lambda one: one != VALIDATION)[:1]:
            found = said[chosen]
            shares = [_rate(found.get(share)) for share in SAID]
            table.add_row(str(row["iteration"]), chosen, _whole(found["explanation_words_median"]), *shares)
    return table


def _of_mirrors(rows: list[dict[str, Any]]) -> Table:
    """What only the instruction can tell: the same two responses, under the other instruction too. `words`: what always
    the response with more of the instruction's words scores, which needs no judgment either.
    """
    title = "Pairs with a mirror (a coin: 6 % right of both; changes: if consistent; words: right by more words)"
    headers = [name for shown in OF_MIRRORS.values() for name in (f"{shown} [95 %]", "n")]
    table = _of_sets(title, [*headers, "words"])
    for row in rows:
        for name, headline in row["sets"].items():
            if found := _mirrored(headline):
                cells = [cell for figure in found for cell in (_with_interval(figure), _whole((figure or {}).get("n")))]
                words = _percent((headline.get("overlap_baseline") or {}).get("value"))
                table.add_row(str(row["iteration"]), name, *cells, words)
    return table


def _mirrored(headline: Mapping[str, Any] | None) -> list[Mapping[str, Any] | None]:
    """The figures of a set whose pairs have mirrors; nothing where none has."""
    found = [headline.get(name) for name in OF_MIRRORS] if headline else []
    return found if any(found) else []


def _by_similarity(rows: list[dict[str, Any]]) -> Table:
    """Accuracy from the least to the most similar instructions of a pair: does a judge fail where they are close?"""
    title = "Accuracy by similarity of a pair's two instructions (thirds)"
    table = _of_sets(title, [f"{name} [95 %]" for name in THIRDS])
    for row in rows:
        for name, headline in row["sets"].items():
            if found := _thirds(headline):
                table.add_row(str(row["iteration"]), name, *(_with_interval(found.get(third)) for third in THIRDS))
    return table


def _thirds(headline: Mapping[str, Any] | None) -> dict[str, Any]:
    """{third: accuracy} of a set whose pairs have two instructions."""
    names = {third: f"accuracy_{third}_similar" for third in THIRDS}
    return {third: headline[name] for third, name in names.items() if headline and headline.get(name)}


def _changes(rows: list[dict[str, Any]]) -> Table:
    title = "Accuracy against the iteration before"
    title += " (dpo: against the SFT checkpoint)" if any(row.get("phase") for row in rows) else ""
    table = _of_sets(title, ("change [95 %]", "better : worse", "p (sign test)"), caption=_of_form(rows))
    for row in rows:
        for name, change in row["changes"].items():
            found, test = change["difference"], change["mcnemar"]
            bounds = "" if found["low"] is None else f" [{100 * found['low']:+.0f} – {100 * found['high']:+.0f}]"
            counts = f"{test['b_better']} : {test['a_better']}"
            marked = name + "*" * (name == VALIDATION and row.get("selected", False))
            change_told = f"{100 * found['value']:+.1f}{bounds}"
            table.add_row(str(row["iteration"]), marked, change_told, counts, f"{test['p_value']:.2g}")
    return table


def _of_form(rows: list[dict[str, Any]]) -> str | None:
    """What of a change may be that answers have a verdict now: one without counts as wrong, and a coin in its place is
    right half of the time.
    """
    found = []
    for before, row in itertools.pairwise(row for row in rows if "prompt" not in row and row["iteration"] != "first"):
        for name in row["changes"]:
            was, now = ((r["sets"].get(name) or {}).get("unparsed_rate", {}).get("value") for r in (before, row))
            gained, by_coin = row["changes"][name]["difference"]["value"], COIN * ((was or 0) - (now or 0))
            if was is not None and now is not None and gained > 0 and by_coin >= PART * gained:
                told = f"{row['iteration']} {name} {100 * was:.0f} to {100 * now:.0f} ({100 * by_coin:+.1f} points)"
                found.append(told)
    if not found:
        return None
    return f"part is form: answers without a verdict, %, and what a coin in their place gains: {', '.join(found)}"


def _set_cells(headline: Mapping[str, Any] | None) -> list[str]:
    nothing = ["-"] * (2 + len(BESIDE))
    if not headline:
        return nothing
    # Votes that stopped early have a vote accuracy only: their single samples are no fair sample.
    main = headline.get("accuracy") or headline.get("vote_accuracy")
    if main is None or main["value"] is None:
        return nothing
    others = [headline.get(name, {}).get("value") for name in BESIDE]
    return [_with_interval(main), _whole(main["n"]), *map(_percent, others)]


def _with_interval(found: Mapping[str, Any] | None) -> str:
    if found is None or found["value"] is None:
        return "-"
    interval = "" if found["low"] is None else f" [{100 * found['low']:.0f}–{100 * found['high']:.0f}]"
    return f"{100 * found['value']:.1f}{interval}"


def _cost(rows: list[dict[str, Any]]) -> Table:
    """Of the last judge: those before it cost much the same."""
    last = [row for row in rows if row.get("per_1000")][-1]
    priced = any("price" in found for found in last["per_1000"].values())
    table = _of_sets("1,000 verdicts cost (last judge)", ("s", "prompt tok", "new tok", *["price"] * priced))
    for name, found in last["per_1000"].items():
        price = [amount(found.get("price"))] * priced
        told = [amount(found.get(each)) for each in ("seconds", "prompt_tokens", "completion_tokens")]
        table.add_row(str(last["iteration"]), name, *told, *price)
    return table


def _stages(metrics: list[dict[str, Any]]) -> Table:
    table = Table(title="Stages", box=box.SIMPLE_HEAD, title_justify="left", **TIGHT)
    for name in ("iter", "stage", "rows in", "out", "quarantined", "prompt tok", "new tok", "s"):
        table.add_column(name, justify="left" if name == "stage" else "right", no_wrap=True)
    prompts: list[str] = []
    for line in sorted(metrics, key=_position):
        phase, stage = parts_of(line["stage"])
        own_row = phase or stage == BASELINE
        iteration = row_of(line, prompts)[1]["iteration"] if own_row else line["iteration"]
        stage = stage.replace("baseline_", "").replace("evaluation", "eval")
        table.add_row(
            "-" if iteration is None else str(iteration),
            stage + (f" {line['extra']['set']}" if "set" in line["extra"] else ""),
            _whole(line["rows_in"]),
            _whole(line["rows_out"]),
            _whole(sum(line["quarantined"].values())),
            _whole(line["prompt_tokens"]),
            _whole(line["completion_tokens"]),
            f"{line['seconds']:.0f}",
        )
    return table


def _device_time(rows: list[dict[str, Any]]) -> Table:
    """What the GPUs (without any: the machine) waited for."""
    title = "Time of the devices, in device-seconds (idle: neither an engine nor the optimizer stepped)"
    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", **TIGHT)
    for name in ("iter", "all", "idle %"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("idle for")
    for row in rows:
        account = row.get("device_time")
        if account and account["total"]:
            causes = sorted(account["idle"].items(), key=lambda cause: -cause[1])
            told = ", ".join(f"{name} {seconds:,.0f}" for name, seconds in causes if seconds >= LEAST_TOLD_S)
            share = 1 - account["busy"] / account["total"]
            table.add_row(str(row["iteration"]), _whole(account["total"]), f"{100 * share:.0f}", told)
    return table


def _position(line: Mapping[str, Any]) -> tuple[int, str, int]:
    iteration = -1 if line["iteration"] is None else line["iteration"]
    phase, stage = parts_of(line["stage"])
    return iteration, phase, WORK.index(stage) if stage in WORK else len(WORK)


def _rate(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def _percent(value: float | None) -> str:
    """Whole percent: what stands beside an accuracy has to fit into 80 columns with it."""
    return "-" if value is None else f"{100 * value:.0f}"


def _whole(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}"
