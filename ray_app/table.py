"""The table at the end of a run: one line an iteration, and one line a stage. Read from committed stages only."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

TIGHT: dict[str, Any] = {"padding": (0, 1, 0, 0), "pad_edge": False, "show_edge": False}  # 80 columns are enough
WORK = ("instructions", "pairs", "judgments", "train_set", "training", "evaluation", "first_judge_evaluation")


def iteration_rows(metrics: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One row an iteration from the lines of metrics.jsonl; a value that was not measured is None."""
    rows: dict[int, dict[str, Any]] = {}
    for line in metrics:
        iteration = line["iteration"]
        if iteration is None:
            continue
        row = rows.setdefault(iteration, {"iteration": iteration, "sets": {}, "seconds": 0.0, "tokens": 0})
        row["seconds"] += line["seconds"]
        row["tokens"] += line["completion_tokens"]
        extra = line["extra"]
        if line["stage"] == "train_set":
            row.update({k: extra[k] for k in ("tried", "kept", "keep_rate", "pass_rate", "rows") if k in extra})
        elif line["stage"] == "judgments":
            row["unparsed_rate"] = extra.get("unparsed_rate")
        elif line["stage"] == "evaluation":
            row["sets"][extra["set"]] = extra["headline"]
    return [rows[i] for i in sorted(rows)]


def show(metrics: list[dict[str, Any]], console: Console | None = None) -> None:
    """Print both tables."""
    console = console or Console(soft_wrap=False)
    console.print(_iterations(iteration_rows(metrics)))
    console.print(_stages(metrics))


def _iterations(rows: list[dict[str, Any]]) -> Table:
    table = Table(title="Iterations (0 is the seed model)", box=box.SIMPLE_HEAD, title_justify="left", **TIGHT)
    for name in ("iter", "kept", "keep", "unparsed"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("set", no_wrap=True)
    for name in ("accuracy [95 %]", "consist.", "unparsed"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        cells = [str(row["iteration"]), _whole(row.get("rows")), _rate(row.get("keep_rate"))]
        cells.append(_rate(row.get("unparsed_rate")))
        sets = row["sets"] or {"-": None}
        for name, headline in sets.items():
            table.add_row(*cells, name, *_set_cells(headline))
            cells = [""] * len(cells)
    return table


def _set_cells(headline: Mapping[str, Any] | None) -> list[str]:
    if not headline:
        return ["-", "-", "-"]
    # Votes that stopped early have a vote accuracy only: their single samples are no fair sample.
    main = headline.get("accuracy") or headline.get("vote_accuracy")
    others = [headline.get(name, {}).get("value") for name in ("position_consistent_accuracy", "unparsed_rate")]
    return [_interval(main), *map(_rate, others)]


def _interval(found: Mapping[str, Any] | None) -> str:
    """An estimate with its interval, in percent; one cluster alone has none."""
    if found is None:
        return "-"
    if found["low"] is None:
        return f"{100 * found['value']:.1f}"
    return f"{100 * found['value']:.1f} [{100 * found['low']:.0f}–{100 * found['high']:.0f}]"


def _stages(metrics: list[dict[str, Any]]) -> Table:
    table = Table(title="Stages", box=box.SIMPLE_HEAD, title_justify="left", **TIGHT)
    for name in ("iter", "stage", "rows in", "out", "quarantined", "prompt tok", "new tok", "s"):
        table.add_column(name, justify="left" if name == "stage" else "right", no_wrap=True)
    for line in sorted(metrics, key=_position):
        stage = line["stage"].replace("evaluation", "eval")
        table.add_row(
            "-" if line["iteration"] is None else str(line["iteration"]),
            stage + (f" {line['extra']['set']}" if "set" in line["extra"] else ""),
            _whole(line["rows_in"]),
            _whole(line["rows_out"]),
            _whole(sum(line["quarantined"].values())),
            _whole(line["prompt_tokens"]),
            _whole(line["completion_tokens"]),
            f"{line['seconds']:.0f}",
        )
    return table


def _position(line: Mapping[str, Any]) -> tuple[int, int]:
    iteration = -1 if line["iteration"] is None else line["iteration"]
    return iteration, WORK.index(line["stage"]) if line["stage"] in WORK else len(WORK)


def _rate(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f} %"


def _whole(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}"
