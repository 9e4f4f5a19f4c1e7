"""What figures of the report are made of: traces, axes, and the points of a stage. Pure.

Colours and fonts are the page's, which knows whether it is light or dark; here are only numbers and names.
https://plotly.com/javascript/reference/
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ray_app.findings.naming import at, in_order
from ray_app.findings.set_results import value_of
from ray_app.run.folder import parts_of

Line = Mapping[str, Any]
Chart = dict[str, Any]
FEW = 5  # rows, below which their share is not drawn
PERCENT = {"range": [-3, 103], "tick0": 0, "dtick": 20, "ticksuffix": " %"}  # a marker at an end is shown whole


def chart(title: str, note: str, data: list[dict[str, Any]], y: Mapping[str, Any], x: str = "iteration") -> Chart:
    """One figure. `x` names the axis; iterations are whole numbers. A `part` names the part of the page that it stands
    in, where that is not Figures.
    """
    axis: dict[str, Any] = {"title": {"text": x}}
    if x == "iteration":
        axis |= _axis([value for trace in data for value in trace["x"]])
    elif x == "step":  # whole numbers too, and few of them
        axis |= {"dtick": max(1, round(max((value for trace in data for value in trace["x"]), default=1) / 8))}
    if y == PERCENT:
        told = {"hovertemplate": "%{x}: %{y:.1f} %<extra>%{fullData.name}</extra>"}
        data = [told | trace for trace in data]
    data = [{**trace, "name": plain(trace["name"]), "x": [plain(value) for value in trace["x"]]} for trace in data]
    return {"title": title, "note": note, "data": data, "layout": {"xaxis": axis, "yaxis": dict(y)}}


def _axis(places: Sequence[int | str]) -> dict[str, Any]:
    """Iterations are whole numbers; with second trainings they are names, in their order."""
    numbers = [place for place in places if isinstance(place, int)]
    if len(numbers) < len(places):
        return {"type": "category", "categoryorder": "array", "categoryarray": list(map(str, in_order(places)))}
    room = {"range": [min(numbers) - 0.3, max(numbers) + 0.3]} if numbers else {}
    return {"dtick": 1, **room}


def plain(value: Any) -> Any:
    """A name as text: Plotly reads `<a href=…>` and other markup in names, which come from the user's files."""
    return value.replace("<", "&lt;") if isinstance(value, str) else value


def line(name: str, points: Sequence[tuple[Any, float | None]], **more: Any) -> dict[str, Any]:
    known = [(x, y) for x, y in points if y is not None]
    return {"type": "scatter", "mode": "lines+markers", "name": name, "x": [x for x, _ in known],
            "y": [y for _, y in known], **more}  # fmt: skip


def by_set(metrics: Sequence[Line]) -> dict[str, list[tuple[int | str, Line]]]:
    """{set: (place, headline)} of the seed and of every judge that was trained, from left to right."""
    found: dict[str, list[tuple[int | str, Line]]] = {}
    for place, extra in of_stage(metrics, "evaluation"):
        if extra.get("headline"):
            found.setdefault(extra["set"], []).append((place, extra["headline"]))
    return found


def of_stage(metrics: Sequence[Line], stage: str) -> list[tuple[int | str, Line]]:
    """(place, extra) of a stage in every training, from left to right."""
    found: dict[int | str, list[Line]] = {}
    for row in metrics:
        place = at(row)
        if parts_of(row["stage"])[1] == stage and place is not None:
            found.setdefault(place, []).append(row["extra"])
    return [(place, extra) for place in in_order(found) for extra in found[place]]


def percent(headline: Line, name: str) -> float | None:
    return times(value_of(headline, name))


def enough(headline: Line, name: str) -> float | None:
    """The same, where it is a share of at least FEW rows: one of two rows is no 50 %."""
    few = (headline.get(name) or {}).get("n", FEW) < FEW
    return None if few else percent(headline, name)


def times(value: float | None) -> float | None:
    return None if value is None else 100 * value
