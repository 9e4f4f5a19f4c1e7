"""The rows of a run that are worth reading, read from its tables: a few passes a table, a bounded number of rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ray_app.findings import naming, samples
from ray_app.findings.run_tables import Row, RunTables
from ray_app.findings.samples import Sample
from ray_app.train.data import row_id

RANDOM, EXTREME, OF_AN_ALARM = 15, 5, 8  # rows of each


def readable(tables: RunTables, alarms: Sequence[Row]) -> list[Sample]:
    """Samples of every table, those of alarms first."""
    seed, phases = int(tables.settings.get("seed", 0)), tables.phases()
    alarmed = {phase.folder.phase: alarmed_ids(alarms, phase.folder.phase) for phase in phases}
    lasting, last = tables.lasting()
    found = [
        *instructions(tables, seed),
        *(row for i in (None, *_trained(tables)) for row in pairs(tables, seed, i, alarmed[""])),
        *(row for phase in phases for row in of_phase(phase, seed, alarmed[phase.folder.phase])),
        *(wrong(lasting, seed, last, alarmed[lasting.folder.phase]) if last else ()),
        *(row for phase in phases for row in quarantined(phase, seed, _trained(phase))),
    ]
    return sorted(map(samples.shown, found), key=lambda sample: not sample["why"].startswith("alarm"))


def _trained(tables: RunTables) -> list[int]:
    return [i for i in tables.iterations() if i > 0]


def of_phase(tables: RunTables, seed: int, alarmed: dict[str, str]) -> Iterator[Sample]:
    """Judgments and training rows. Those of a second training may have the ids of the first's, so they are told apart
    by their ends.
    """
    phase, iterations = tables.folder.phase, _trained(tables)
    for made in (judgments, training_rows):
        for row in (row for i in iterations for row in made(tables, seed, i, alarmed)):
            yield {**row, "id": f"{row['id']}/{phase}", "tags": [*row["tags"], phase.upper()]} if phase else row


def alarmed_ids(alarms: Sequence[Row], phase: str = "") -> dict[str, str]:
    """{id: its alarms, as they are searched for} of a few rows of each alarm of this phase."""
    found: dict[str, list[str]] = {}
    for alarm in (alarm for alarm in alarms if alarm.get("phase", "") == phase):
        for identity in alarm["rows"][:OF_AN_ALARM]:
            found.setdefault(identity, []).append(f"alarm: {alarm['name']}")
    return {identity: ", ".join(dict.fromkeys(names)) for identity, names in found.items()}


def instructions(tables: RunTables, seed: int) -> Iterator[Sample]:
    folder = tables.folder.stage_dir("instructions")
    drawn = samples.at_random(tables.rows(folder), RANDOM, seed, lambda row: row["instruction_id"])
    yield from samples.instruction_samples(drawn, "at random")
    longest = samples.lowest(tables.rows(folder), EXTREME, lambda row: -len(row["text"]))
    yield from samples.instruction_samples(longest, "longest")


def pairs(tables: RunTables, seed: int, iteration: int | None, alarmed: dict[str, str]) -> Iterator[Sample]:
    folder = tables.folder.stage_dir("pairs", iteration)
    drawn = samples.at_random(tables.rows(folder), RANDOM, seed, lambda row: row["pair_id"])
    yield from samples.pair_samples(drawn, "at random")
    apart = samples.lowest(tables.rows(folder), EXTREME, lambda row: -abs(len(row["chosen"]) - len(row["rejected"])))
    yield from samples.pair_samples(apart, "lengths furthest apart")
    mirrors = {row["mirror"] for row in drawn if row.get("mirror")}
    for row in samples.by_id(tables.rows(folder), {*alarmed, *mirrors}, lambda row: str(row["pair_id"])):
        yield from samples.pair_samples([row], alarmed.get(row["pair_id"], "mirror of a pair drawn at random"))


def judgments(tables: RunTables, seed: int, iteration: int, alarmed: dict[str, str]) -> Iterator[Sample]:
    """Of some units every judgment that was drawn: what was kept stands beside what was dropped."""
    folder = tables.folder.stage_dir("judgments", iteration)
    pairwise = tables.settings.get("judging", {}).get("mode", "pairwise") == "pairwise"
    keys = tables.rows(folder, columns=("pair_id", "order" if pairwise else "side", "sample"))
    firsts = (row for row in keys if row["sample"] == 0)  # each unit once, however many samples it has
    units = {unit(row) for row in samples.at_random(firsts, RANDOM, seed, unit)}
    for row in tables.rows(folder):
        why = alarmed.get(f"{unit(row)}/{row['sample']}") or ("at random" if unit(row) in units else "")
        if why:
            yield from samples.judgment_samples([row], why, iteration)


def pairs_shown(tables: RunTables, shown: Sequence[Sample]) -> dict[str, list[list[str]]]:
    """{pair id: its fields} of the pairs that these judgments are of: once each, however many judgments are shown."""
    wanted = {sample["pair"][0] for sample in shown if "pair" in sample}
    found: dict[str, list[list[str]]] = {}
    for iteration in (None, *tables.iterations()):
        missing = wanted - set(found)
        rows = tables.rows_of(tables.folder.stage_dir("pairs", iteration), "pair_id", missing) if missing else ()
        for made in samples.pair_samples(rows, ""):
            found[made["id"]] = [field for field in samples.shown(made)["fields"] if field[0] != "mirror"]
    return found


def unit(row: Mapping[str, Any]) -> str:
    return f"{row['pair_id']}/{row.get('order') or row['side']}"


def training_rows(tables: RunTables, seed: int, iteration: int, alarmed: dict[str, str]) -> Iterator[Sample]:
    drawn = samples.at_random(tables.train_set(iteration), RANDOM, seed, row_id)
    yield from samples.training_samples(drawn, "at random")
    for row in samples.by_id(tables.train_set(iteration), set(alarmed), row_id):
        yield from samples.training_samples([row], alarmed[row_id(row)])


def wrong(tables: RunTables, seed: int, iteration: int, alarmed: dict[str, str]) -> Iterator[Sample]:
    """Wrong verdicts of the last judge, by set, and those of its alarms; of pairwise sets, whose votes are letters."""
    for line in tables.metrics():
        if line["stage"] != "evaluation" or line["iteration"] != iteration:
            continue
        name = line["extra"]["set"]
        if tables.summary(iteration, name).get("kind", "pairwise") != "pairwise":
            continue
        if "order" not in next(tables.votes(iteration, name), {}):  # scores, which are neither right nor wrong
            continue
        votes = (row for row in tables.votes(iteration, name) if row.get("correct") is False)
        drawn = samples.at_random(votes, RANDOM, seed, _vote_id)
        raised = samples.by_id(tables.votes(iteration, name), set(alarmed), _vote_id)
        wanted = {samples.vote_key(row) for row in (*drawn, *raised)}
        units = {samples.vote_key(row): row for row in tables.units(iteration, name) if samples.vote_key(row) in wanted}
        yield from samples.vote_samples(drawn, units, name, iteration, f"wrong on {name}")
        for row in raised:
            yield from samples.vote_samples([row], units, name, iteration, alarmed[_vote_id(row)])


def _vote_id(row: Mapping[str, Any]) -> str:
    return f"{row['id']}/{row['order']}/{row['sample']}"


def quarantined(tables: RunTables, seed: int, iterations: list[int]) -> Iterator[Sample]:
    """Some lost rows of every stage."""
    phase = tables.folder.phase
    places: list[tuple[str, int | None]] = [] if phase else [("instructions", None), ("pairs", None)]
    places += [(stage, i) for i in iterations for stage in ("pairs", "judgments", "train_set")]
    for stage, iteration in places:
        rows = tables.quarantine(tables.folder.stage_dir(stage, iteration))
        where = stage if iteration is None else f"{stage}, {naming.where(iteration, phase)}"
        drawn = samples.at_random(rows, EXTREME, seed, lambda row: str(row["id"]))
        yield from samples.quarantine_samples(drawn, where)
