"""From a run folder to its alarms: each table is read once, and only the columns that are looked at."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, TypeVar

from ray_app.findings.alarms import Alarm, Evidence, alarms_of, as_rows
from ray_app.findings.facts import Share, VerdictFacts, explanation_facts, pair_facts, verdict_facts
from ray_app.findings.run_tables import ALARMS, RunTables
from ray_app.findings.settings import AlarmSettings
from ray_app.run import storage
from ray_app.run.folder import read_record

Facts = TypeVar("Facts")
PAIR_COLUMNS = ("pair_id", "chosen", "rejected")
TRAIN_COLUMNS = ("pair_id", "order", "sample", "iteration")
JUDGMENT_COLUMNS = ("pair_id", "order", "sample", "verdict")
VOTE_COLUMNS = ("id", "order", "sample", "verdict")


def gather(tables: RunTables, iterations: Collection[int | None]) -> Evidence:
    """What alarms look at, of these iterations (None: of pairs that are made once; they are looked at with the first
    phase). Metrics are those of the whole phase: they are few.
    """
    metrics = tables.metrics()
    pairwise = tables.settings.get("judging", {}).get("mode", "pairwise") == "pairwise"
    numbers = sorted(i for i in iterations if i is not None)
    sets = {
        (line["iteration"], line["extra"]["set"]): line["extra"].get("headline") or {}
        for line in metrics
        if line["stage"] == "evaluation" and line["iteration"] in numbers and line["iteration"] > 0
    }
    folder = tables.folder
    recipe = tables.settings.get("train", {}).get("recipe", "sft")
    said = (*TRAIN_COLUMNS, "chosen" if recipe == "dpo" else "completion")  # a row's prompt and tokens are far more
    return Evidence(
        metrics,
        phase=folder.phase,
        another_first_judge=not folder.phase and _another_first_judge(tables.settings),
        late_overlap=tables.described.get("late_overlap", {}),
        pairs={
            i: _known(folder.stage_dir("pairs", i), lambda at: pair_facts(tables.rows(at, columns=PAIR_COLUMNS)))
            for i in ([] if folder.phase else iterations)
            if storage.list_files(folder.stage_dir("pairs", i), "shard-*.parquet")
        },
        explanations={
            i: _known(folder.stage_dir("train_set", i), lambda at: explanation_facts(tables.rows(at, columns=said)))
            for i in numbers
            if i > 0
        },
        judgments={
            i: _known(
                folder.stage_dir("judgments", i), lambda at: verdict_facts(tables.rows(at, columns=JUDGMENT_COLUMNS))
            )
            for i in numbers
            if i > 0 and pairwise
        },
        votes={
            (i, name): _votes(tables, i, name, headline, pairwise)
            for (i, name), headline in sets.items()
            if "unparsed_rate" in headline
        },
    )


_KNOWN: dict[tuple[str, str], Any] = {}  # facts of committed stages, by folder and time of the commit


def _known(directory: str, count: Callable[[str], Facts]) -> Facts:
    """What is counted in a stage's table. A committed table does not change: it is not read again at a run's end, nor
    at each load of a served report.
    """
    record = read_record(directory)
    if record is None:
        return count(directory)
    key = (directory, record.finished)
    if key not in _KNOWN:
        _KNOWN[key] = count(directory)
    found: Facts = _KNOWN[key]
    return found


def _another_first_judge(settings: Mapping[str, Any]) -> bool:
    first, seed = settings.get("first_judge") or {}, settings.get("judge") or {}
    return bool(first) and first.get("model") != seed.get("model")


def _votes(tables: RunTables, iteration: int, name: str, headline: Mapping[str, Any], pairwise: bool) -> VerdictFacts:
    """From the votes, which have ids; from the set's figures where its votes are no letters, or are not there."""
    if pairwise and tables.summary(iteration, name).get("kind", "pairwise") == "pairwise":
        place = tables.evaluation(iteration, name)
        facts = _known(place, lambda at: verdict_facts(tables.rows(at, columns=VOTE_COLUMNS)))
        if facts.unparsed.of:
            return facts
    unparsed, first = (headline.get(rate) or {} for rate in ("unparsed_rate", "first_position_rate"))
    return VerdictFacts(_share(unparsed), _share(first))


def _share(figure: Mapping[str, Any]) -> Share:
    n = int(figure.get("n") or 0)
    return Share(n, round((figure.get("value") or 0) * n))


def look(tables: RunTables, limits: AlarmSettings) -> list[dict[str, Any]]:
    """Every alarm of a run, as it lies there now, in the order of its iterations; nothing is written."""
    return sorted(as_rows(_found(tables, limits, [None, *tables.iterations()])), key=_place)


def _found(tables: RunTables, limits: AlarmSettings, iterations: Collection[int | None]) -> list[Alarm]:
    """What these iterations raise, in both trainings where there are two."""
    return [alarm for phase in tables.phases() for alarm in alarms_of(gather(phase, iterations), limits)]


def update(uri: str, limits: AlarmSettings, looked_at: Collection[int | None]) -> list[Alarm]:
    """Look at these iterations (None: at what is made once), write alarms.json, and return what was found in them.
    Alarms of other iterations stay as they were written, so that no look reads the whole run again.
    """
    tables = RunTables(uri)
    found = [alarm for alarm in _found(tables, limits, looked_at) if alarm.iteration in looked_at]
    kept = [row for row in tables.alarms() if row["iteration"] not in looked_at]
    write(uri, sorted([*kept, *as_rows(found)], key=_place))
    return found


def write(uri: str, alarms: Sequence[dict[str, Any]]) -> None:
    """Write alarms.json."""
    storage.write_json_atomic(storage.join(uri, ALARMS), {"alarms": list(alarms)})


def _place(row: dict[str, Any]) -> int:
    return -1 if row["iteration"] is None else int(row["iteration"])
