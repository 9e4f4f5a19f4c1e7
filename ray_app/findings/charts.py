"""The report's figures as plotly specifications ({"title", "note", "data", "layout"}); what they are made of is in
`plotting`. Pure: metrics in, data out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ray_app.findings.naming import BASELINE, FIRST_JUDGE, judge_name, stage_words
from ray_app.findings.plotting import PERCENT, Chart, Line, by_set, chart, enough, line, of_stage, percent, times
from ray_app.findings.set_results import COIN, chance_of, measured, value_of
from ray_app.metrics.similarity import THIRDS

GROUPS = 20  # more bars than that cannot be read
MARKS = (("diamond", "◆"), ("triangle-up", "▲"), ("square", "■"), ("star", "★"), ("cross", "✚"))  # of other judges


def charts(
    metrics: Sequence[Line], summaries: Mapping[str, Line], losses: Mapping[int | str, Sequence[Line]]
) -> list[Chart]:
    """All that there is something to show in. `summaries`: {set: summary.json} of the last judge; `losses`: the points
    of each training, by its place on the axis of iterations.
    """
    made = [
        accuracy(metrics),
        controls(metrics),
        rejection(metrics),
        explanations(metrics),
        bias(metrics),
        by_group(metrics, "category"),
        by_group(metrics, "complexity"),
        calibration(summaries),
        curves({place: points for place, points in losses.items() if not _by_preference(points)}),
        preferences({place: points for place, points in losses.items() if _by_preference(points)}),
        candidates(metrics),
        seconds(metrics),
        devices(metrics),
        tokens(metrics),
    ]
    return [chart for chart in made if chart["data"]]


def accuracy(metrics: Sequence[Line]) -> Chart:
    data = []
    for number, (name, rows) in enumerate(by_set(metrics).items()):
        found = [(i, figure) for i, headline in rows if (figure := measured(headline))]
        if not found:
            continue
        values = [100 * figure["value"] for _, figure in found]
        bars = [(figure["low"], figure["high"]) for _, figure in found]
        error = {
            "type": "data",
            "symmetric": False,
            "array": [0 if high is None else 100 * high - v for (_, high), v in zip(bars, values, strict=True)],
            "arrayminus": [0 if low is None else v - 100 * low for (low, _), v in zip(bars, values, strict=True)],
        }
        group = {"legendgroup": name, "colour": number}
        data.append(line(name, [(i, v) for (i, _), v in zip(found, values, strict=True)], error_y=error, **group))
        baseline = [(i, percent(headline, "length_baseline")) for i, headline in rows]
        if any(y is not None for _, y in baseline):
            dotted = {"mode": "lines", "line": {"dash": "dot", "width": 1}, "showlegend": False}
            data.append(line(f"{name}: always the longer", baseline, **dotted, **group))
    others, told = _other_judges(metrics, list(by_set(metrics)))
    data += others
    known = [headline for rows in by_set(metrics).values() for _, headline in rows]
    note = "Bars are 95 % intervals"
    note += (
        "; dotted: what always the longer response scores on the same rows" if _any(known, "length_baseline") else ""
    )
    note += ". Chance is 50 % of pairs (the thin line)"
    note += " and 25 % of best-of-four rows" if any(chance_of(headline) < COIN for headline in known) else ""
    made = chart("Accuracy by iteration", f"{note}.{told}", data, PERCENT)
    made["layout"]["shapes"] = [_level(100 * COIN)]
    return made


def _any(headlines: Sequence[Line], name: str) -> bool:
    return any(value_of(headline, name) is not None for headline in headlines)


def _level(y: float) -> dict[str, Any]:
    """A thin line over the whole width."""
    return {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": y, "y1": y, "line": {"color": "#888", "width": 1}}


def _other_judges(metrics: Sequence[Line], sets: Sequence[str]) -> tuple[list[dict[str, Any]], str]:
    """Markers at 0 of the first judge, and of the seed with other prompts, in the colours of their sets; and the note
    that tells their forms.
    """
    data: list[dict[str, Any]] = []
    forms: dict[str, tuple[str, str]] = {}
    for row in metrics:
        figure, name = measured(row["extra"].get("headline")), row["extra"].get("set")
        if row["stage"] not in (FIRST_JUDGE, BASELINE) or figure is None:
            continue
        judge = judge_name(row)
        symbol, _ = forms.setdefault(judge, MARKS[len(forms) % len(MARKS)])
        colour = {"colour": sets.index(name)} if name in sets else {}
        marks = {"mode": "markers", "marker": {"symbol": symbol, "size": 10}, "showlegend": False}
        data.append(line(f"{name}: {judge}", [(0, 100 * figure["value"])], legendgroup=name, **marks, **colour))
    told = "; ".join(f"{sign} {judge}" for judge, (_, sign) in forms.items())
    return data, f" At 0 also: {told}." if told else ""


def controls(metrics: Sequence[Line]) -> Chart:
    names = {
        "mirrored_accuracy": "right in both orders, and of the mirror",
        "instruction_sensitivity": "winner changes with the instruction",
        "position_consistent_accuracy": "right in both orders",
        **{f"accuracy_{third}_similar": f"accuracy, {third} similar third" for third in THIRDS},
    }
    rows = by_set(metrics).get("heldout", [])
    data = [line(text, [(i, enough(headline, name)) for i, headline in rows]) for name, text in names.items()]
    mirrored = any(headline.get("mirrored_accuracy") for _, headline in rows)
    title = "Does the instruction matter? (held-out pairs)" if mirrored else "Held-out pairs, looked at closely"
    note = (
        "A judge that looks at the responses alone is never right of a pair and its mirror; a coin in 6 %."
        if mirrored
        else "No mirrored pairs in this run: whether the judge reads the instruction is not measured (pairs.mirror)."
    )
    if any(headline.get(f"accuracy_{third}_similar") for third in THIRDS for _, headline in rows):
        note += " Thirds of the pairs, by the similarity of their two instructions."
    return chart(title, note, [d for d in data if d["x"]], PERCENT)


def rejection(metrics: Sequence[Line]) -> Chart:
    trained = of_stage(metrics, "train_set")
    data = [
        line("kept: a correct judgment was drawn", [(i, times(x.get("keep_rate"))) for i, x in trained]),
        line("passed: the first judgment is correct", [(i, times(x.get("pass_rate"))) for i, x in trained]),
        line(
            "judgments without a verdict",
            [(i, times(x.get("unparsed_rate"))) for i, x in of_stage(metrics, "judgments")],
        ),
    ]
    note = "Of (pair, order). From iteration 2 on these are pairs that the judge was trained on, unless made anew."
    return chart("Rejection sampling", note, [d for d in data if d["x"]], PERCENT)


def explanations(metrics: Sequence[Line]) -> Chart:
    rows = of_stage(metrics, "train_set")
    data = [
        line("bare verdicts", [(i, times(x.get("bare_verdicts"))) for i, x in rows]),
        line("distinct among the explanations", [(i, times(x.get("distinct_explanations"))) for i, x in rows]),
        line(
            "verdict against the explanation, of those that call a response better",
            [(i, times(x.get("contradicting_explanations"))) for i, x in rows],
        ),
        line("median words", [(i, x.get("explanation_words_median")) for i, x in rows], yaxis="y2"),
    ]
    made = chart("What trained judgments say besides the verdict", "Words on the right axis.", data, PERCENT)
    made["data"] = [d for d in data if d["x"]]
    made["layout"]["yaxis2"] = {
        "overlaying": "y",
        "side": "right",
        "rangemode": "tozero",
        "showgrid": False,
        "tickformat": "d",
        "dtick": max(1, round(max(data[-1]["y"], default=0) / 5)),
    }
    return made


def bias(metrics: Sequence[Line]) -> Chart:
    data = [
        line(name, [(i, enough(headline, "first_position_rate")) for i, headline in rows])
        for name, rows in by_set(metrics).items()
    ]
    return chart(
        "Position bias: verdicts for the response shown first", "50 % is even.", [d for d in data if d["x"]], PERCENT
    )


def by_group(metrics: Sequence[Line], what: str) -> Chart:
    rows = of_stage(metrics, "train_set")
    data = []
    for place, extra in rows[:1] + rows[1:][-1:]:
        groups = {k: v for k, v in (extra.get(f"pass_rate_by_{what}") or {}).items() if v.get("value") is not None}
        largest = sorted(groups, key=lambda name: -groups[name]["n"])[:GROUPS]
        names = sorted(
            largest, key=lambda name: (not name.isdigit(), int(name) if name.isdigit() else -groups[name]["n"])
        )
        text = [f"n = {groups[name]['n']}" for name in names]
        bars = {"type": "bar", "name": f"iteration {place}", "x": names, "text": text, "textposition": "none"}
        if len(names) > 1:
            data.append({**bars, "y": [100 * groups[name]["value"] for name in names]})
    note = f"Of a pair in one order: is its first judgment correct? At most the {GROUPS} largest groups, largest first."
    return chart(f"Pass rate by {what}", note, data, PERCENT, what)


def calibration(summaries: Mapping[str, Line]) -> Chart:
    data = []
    for name, summary in summaries.items():
        bins = (summary.get("calibration") or {}).get("bins") or []
        if bins:
            points = [(100 * b["share"], 100 * b["accuracy"]) for b in bins]
            data.append(line(name, points, text=[f"n = {b['n']}" for b in bins]))
    if data:
        even = {"mode": "lines", "line": {"dash": "dot"}, "showlegend": False}
        data.append(line("calibrated", [(50, 50), (100, 100)], **even))
    note = "Vote share of the majority against how often it is right; on the dotted line the share is honest."
    return chart("Calibration of votes", note, data, PERCENT, "vote share, %")


def curves(losses: Mapping[int | str, Sequence[Line]]) -> Chart:
    return chart("Training loss", "Per target token.", _points(losses, "loss"), {"rangemode": "tozero"}, "step")


def preferences(losses: Mapping[int | str, Sequence[Line]]) -> Chart:
    """Of trainings by DPO, whose loss has two parts."""
    note = (
        "Of a right and a wrong judgment, without the part that keeps the right one likely. It begins at 0.69 (log 2), "
    )
    note += "where the model does not yet prefer the right one; lower is better."
    return chart("Preference loss (DPO)", note, _points(losses, "dpo_loss"), {"rangemode": "tozero"}, "step")


def _by_preference(points: Sequence[Line]) -> bool:
    return any("dpo_loss" in point for point in points)


def _points(losses: Mapping[int | str, Sequence[Line]], name: str) -> list[dict[str, Any]]:
    """A line a training; one that made a single step is a marker."""
    found = {
        place: [(point.get("step", n + 1), point.get(name)) for n, point in enumerate(points)]
        for place, points in losses.items()
    }
    data = [
        line(f"iteration {place}", points, mode="lines" if len(points) > 1 else "markers")
        for place, points in found.items()
    ]
    return [trace for trace in data if trace["x"]]


def candidates(metrics: Sequence[Line]) -> Chart:
    data = []
    for place, extra in of_stage(metrics, "training"):
        scores = extra.get("candidates") or []
        if len(scores) > 1:
            chosen = ["circle" if s["step"] == extra.get("selected_step") else "circle-open" for s in scores]
            points = [(s["step"], times(s["accuracy"])) for s in scores]
            data.append(line(f"iteration {place}", points, marker={"symbol": chosen, "size": 10}))
    note = "Validation accuracy of every saved step; the full marker became the checkpoint."
    return chart("Checkpoint selection", note, data, PERCENT, "step")


def seconds(metrics: Sequence[Line]) -> Chart:
    note = "Wall time of the attempt that committed, engine start included; stages that ran side by side overlap."
    made = chart(
        "Where the time went", note, _stacked(metrics, lambda row: float(row["seconds"])), {"ticksuffix": " s"}
    )
    return {**made, "part": "time"}


def devices(metrics: Sequence[Line]) -> Chart:
    """What the GPUs did: at work, or idle, by cause (docs/metrics.md, `device_time`)."""
    sums: dict[str, dict[str, float]] = {}
    for row in metrics:
        account = row["extra"].get("device_time")
        if not account:
            continue
        place = _place(row)
        for name, value in {"at work": account["busy"], **account["idle"]}.items():
            named = sums.setdefault(name if name == "at work" else f"idle: {name}", {})
            named[place] = named.get(place, 0.0) + value
    note = "Device-seconds; a run without a GPU counts its machine as one device. At work: an engine or the optimizer."
    return {**chart("What the devices did", note, _bars(sums), {"ticksuffix": " s"}), "part": "time"}


def tokens(metrics: Sequence[Line]) -> Chart:
    made = chart("Tokens made", "By engines.", _stacked(metrics, lambda row: float(row["completion_tokens"])), {})
    return {**made, "part": "time"}


def _stacked(metrics: Sequence[Line], value: Any) -> list[dict[str, Any]]:
    sums: dict[str, dict[str, float]] = {}
    for row in metrics:
        stage = sums.setdefault(stage_words(row["stage"]), {})
        stage[_place(row)] = stage.get(_place(row), 0.0) + value(row)
    return _bars(sums)


def _place(row: Line) -> str:
    """The whole iteration: its second training is a colour of its own."""
    return "once" if row["iteration"] is None else str(row["iteration"])


def _bars(sums: Mapping[str, Mapping[str, float]]) -> list[dict[str, Any]]:
    """{name: {iteration: value}} as bars that are stacked. What has nothing to show has no bar."""
    return [
        {
            "type": "bar",
            "name": name,
            "x": list(found),
            "y": [round(v, 1) for v in found.values()],
            "colour": number,  # a name has the same one in every figure, also where another has nothing to show
        }
        for number, (name, found) in enumerate(sums.items())
        if any(found.values())
    ]
