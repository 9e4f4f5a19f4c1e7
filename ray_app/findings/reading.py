"""The rows of a run that are worth reading, read from its tables: a few passes a table, a bounded number of rows."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ray_app.base.model_files import JUDGE_CARD
from ray_app.base.prompts import RESPONSES, prompt_from
from ray_app.findings import lost, samples
from ray_app.findings.run_tables import Row, RunTables
from ray_app.findings.samples import Place, Sample, outcome
from ray_app.run import storage
from ray_app.train.data import row_id

RANDOM, EXTREME, OF_AN_ALARM = 15, 5, 8  # rows of each
VERDICTS = {"wrong": 3, "no verdict": 2, "right": 2}  # of a judge on a set
LASTING = {"wrong": RANDOM, "no verdict": EXTREME, "right": EXTREME}  # the same of the judge that goes on
LENGTHS = (samples.LONGEST, 2_000, 1_000, 500)  # characters of a text, as many as fit
ROOM = 2_500_000  # bytes of a page for its samples; its figures need as much
AT_RANDOM = ("at random",)
VOTE_COLUMNS = ("id", "order", "sample", "verdict", "correct")

Alarms = Sequence[Row]
Reasons = Mapping[str, Sequence[str]]  # {id: the alarms that it raised, as they are searched for}


def readable(tables: RunTables, alarms: Alarms) -> list[Sample]:
    """Samples of every table with their whole texts, each row once, those of alarms first."""
    seed, phases = int(tables.settings.get("seed", 0)), tables.phases()
    lasting, last = tables.lasting()
    found = [
        *instructions(tables, seed),
        *(row for i in (None, *_trained(tables)) for row in pairs(tables, seed, Place(i), alarms)),
        *(row for phase in phases for row in of_phase(phase, seed, alarms)),
        *(
            row
            for phase in phases
            for row in verdicts(phase, seed, alarms, last if phase.folder.phase == lasting.folder.phase else 0)
        ),
        *quarantined(tables, seed),
    ]
    return sorted(samples.merged(found), key=lambda sample: not any(why.startswith("alarm") for why in sample["why"]))


def _trained(tables: RunTables) -> list[int]:
    return [i for i in tables.iterations() if i > 0]


def of_phase(tables: RunTables, seed: int, alarms: Alarms) -> Iterator[Sample]:
    """Judgments and training rows."""
    places = [Place(i, tables.folder.phase) for i in _trained(tables)]
    for made in (judgments, training_rows):
        yield from (row for place in places for row in made(tables, seed, place, alarms))


def alarmed_at(alarms: Alarms, place: Place) -> Reasons:
    """A few rows of each alarm on the tables of this place: others have rows of the same ids."""
    found: dict[str, list[str]] = {}
    for alarm in alarms:
        name = alarm.get("set") or place.set  # most are on no evaluation set, older ones did not say on which
        if Place(alarm["iteration"], alarm.get("phase", ""), name) == place:
            for identity in alarm["rows"][:OF_AN_ALARM]:
                found.setdefault(identity, []).append(f"alarm: {alarm['name']}")
    return found


def instructions(tables: RunTables, seed: int) -> Iterator[Sample]:
    folder = tables.folder.stage_dir("instructions")
    drawn = samples.at_random(tables.rows(folder), RANDOM, seed, lambda row: row["instruction_id"])
    yield from samples.instruction_samples(drawn, AT_RANDOM)
    longest = samples.lowest(tables.rows(folder), EXTREME, lambda row: -len(row["text"]))
    yield from samples.instruction_samples(longest, ["longest"])


def pairs(tables: RunTables, seed: int, place: Place, alarms: Alarms) -> Iterator[Sample]:
    folder, alarmed = tables.folder.stage_dir("pairs", place.iteration), alarmed_at(alarms, place)
    drawn = samples.at_random(tables.rows(folder), RANDOM, seed, lambda row: row["pair_id"])
    yield from samples.pair_samples(drawn, AT_RANDOM, place)
    apart = samples.lowest(tables.rows(folder), EXTREME, lambda row: -abs(len(row["chosen"]) - len(row["rejected"])))
    yield from samples.pair_samples(apart, ["lengths furthest apart"], place)
    mirrors = {row["mirror"] for row in drawn if row.get("mirror")}
    for row in samples.by_id(tables.rows(folder), {*alarmed, *mirrors}, lambda row: str(row["pair_id"])):
        yield from samples.pair_samples([row], alarmed.get(row["pair_id"], ["mirror of a pair drawn at random"]), place)


def judgments(tables: RunTables, seed: int, place: Place, alarms: Alarms) -> Iterator[Sample]:
    """Of some units every judgment that was drawn: what was kept stands beside what was dropped."""
    folder, alarmed = tables.folder.stage_dir("judgments", place.iteration), alarmed_at(alarms, place)
    pairwise = tables.settings.get("judging", {}).get("mode", "pairwise") == "pairwise"
    keys = tables.rows(folder, columns=("pair_id", "order" if pairwise else "side", "sample"))
    firsts = (row for row in keys if row["sample"] == 0)  # each unit once, however many samples it has
    units = {unit(row) for row in samples.at_random(firsts, RANDOM, seed, unit)}
    for row in tables.rows(folder):
        why = [*alarmed.get(f"{unit(row)}/{row['sample']}", ()), *(AT_RANDOM if unit(row) in units else ())]
        if why:
            yield from samples.judgment_samples([row], why, place)


def fitting(tables: RunTables, found: Sequence[Sample]) -> tuple[list[Sample], dict[str, list[list[str]]]]:
    """(samples, the pairs of their judgments) with their texts cut so that they leave a page room for its figures: the
    more rows and sets a run has, and the longer their texts are, the shorter they are shown.
    """
    for longest in LENGTHS:
        rows = [samples.shown(sample, longest=longest) for sample in found]
        pairs = pairs_shown(tables, rows, longest)
        if len(json.dumps([rows, pairs])) <= ROOM:
            break
    return rows, pairs


def pairs_shown(
    tables: RunTables, shown: Sequence[Sample], longest: int = samples.LONGEST
) -> dict[str, list[list[str]]]:
    """{pair id: its fields} of the pairs that these judgments are of: once each, however many judgments are shown."""
    wanted = {sample["pair"][0] for sample in shown if "pair" in sample}
    found: dict[str, list[list[str]]] = {}
    for iteration in (None, *tables.iterations()):
        missing = wanted - set(found)
        rows = tables.rows_of(tables.folder.stage_dir("pairs", iteration), "pair_id", missing) if missing else ()
        for made in samples.pair_samples(rows, ()):
            found[made["id"]] = [
                field for field in samples.shown(made, longest=longest)["fields"] if field[0] != "mirror"
            ]
    return found


def judge_prompt(tables: RunTables) -> list[list[str]]:
    """[[role, text], …] of the prompt that the run's judges have, with `{{ instruction }}` and so on where texts stand:
    with its pair it is the prompt of a judgment. From the card of a trained judge; empty where there is none yet.
    """
    for iteration in _trained(tables):
        card = tables.json(storage.join(tables.folder.checkpoint(iteration), JUDGE_CARD))
        if card.get("prompt"):
            names = ("instruction", "response", *RESPONSES)
            messages = prompt_from(card["prompt"]).render(**{name: f"{{{{ {name} }}}}" for name in names})
            return [[turn["role"], turn["content"]] for turn in messages]
    return []


def unit(row: Mapping[str, Any]) -> str:
    return f"{row['pair_id']}/{row.get('order') or row['side']}"


def training_rows(tables: RunTables, seed: int, place: Place, alarms: Alarms) -> Iterator[Sample]:
    iteration, alarmed = place.iteration or 0, alarmed_at(alarms, place)
    drawn = samples.at_random(tables.train_set(iteration), RANDOM, seed, row_id)
    yield from samples.training_samples(drawn, AT_RANDOM, place.phase)
    for row in samples.by_id(tables.train_set(iteration), alarmed.keys(), row_id):
        yield from samples.training_samples([row], alarmed[row_id(row)], place.phase)


def verdicts(tables: RunTables, seed: int, alarms: Alarms, last: int) -> Iterator[Sample]:
    """Wrong and right verdicts, and answers without one, of the seed and of every judge that was trained, by set; more
    of the judge of iteration `last`. Of pairwise sets, whose votes are letters.
    """
    for line in tables.metrics():
        if line["stage"] != "evaluation":
            continue
        place = Place(line["iteration"], tables.folder.phase, line["extra"]["set"])
        if tables.summary(line["iteration"], place.set).get("kind", "pairwise") != "pairwise":
            continue
        if "order" in next(
            tables.votes(line["iteration"], place.set), {}
        ):  # others are scores, neither right nor wrong
            counts = LASTING if last and line["iteration"] == last else VERDICTS
            yield from _of_set(tables, seed, place, alarmed_at(alarms, place), counts)


def _of_set(
    tables: RunTables, seed: int, place: Place, alarmed: Reasons, counts: Mapping[str, int]
) -> Iterator[Sample]:
    directory = tables.evaluation(place.iteration or 0, place.set)
    keys = list(tables.rows(directory, columns=VOTE_COLUMNS))  # a set is as large as its benchmark: it fits
    why = {_vote_id(row): list(alarmed[_vote_id(row)]) for row in keys if _vote_id(row) in alarmed}
    for kind, count in counts.items():
        of_kind = (row for row in keys if outcome(row["verdict"], row["correct"]) == kind)
        for row in samples.at_random(of_kind, count, seed, _vote_id):
            why.setdefault(_vote_id(row), []).extend(AT_RANDOM)
    wanted = {row["id"] for row in keys if _vote_id(row) in why}
    votes = {_vote_id(row): row for row in tables.rows_of(directory, "id", wanted)}
    shown = tables.rows_of(storage.join(directory, "units"), "id", wanted)
    units = {samples.vote_key(row): row for row in shown}
    for identity, reasons in why.items():
        yield from samples.vote_samples([votes[identity]], units, reasons, place)


def _vote_id(row: Mapping[str, Any]) -> str:
    return f"{row['id']}/{row['order']}/{row['sample']}"


def quarantined(tables: RunTables, seed: int) -> list[Sample]:
    """Some lost rows of every stage."""
    found: list[Sample] = []
    for phase in tables.phases():
        for where in lost.places(phase):
            drawn = samples.at_random(phase.quarantine(where.directory), EXTREME, seed, lambda row: str(row["id"]))
            found += lost.lost_samples(drawn, where, AT_RANDOM, phase.settings)
    return lost.with_instructions(tables, found)


def totals(tables: RunTables) -> dict[str, int]:
    """{kind of sample: rows that the run has of it}, from the ends of its files; of verdicts by outcome too
    (`evaluation wrong`).
    """
    found: Counter[str] = Counter()
    found["instruction"] = _rows(tables.folder.stage_dir("instructions"))
    found["pair"] = sum(_rows(tables.folder.stage_dir("pairs", i)) for i in (None, *_trained(tables)))
    for phase in tables.phases():
        for kind, stage in (("judgment", "judgments"), ("training row", "train_set")):
            found[kind] += sum(_rows(phase.folder.stage_dir(stage, i)) for i in _trained(phase))
        found[lost.KIND] += sum(_rows(where.directory, "quarantine") for where in lost.places(phase))
        for line in (line for line in phase.metrics() if line["stage"] == "evaluation"):
            found += _verdicts_of(phase, line["iteration"], line["extra"]["set"])
    return dict(found)


def _rows(directory: str, prefix: str = "shard") -> int:
    return sum(map(storage.count_rows, storage.list_files(directory, f"{prefix}-*.parquet")))


def _verdicts_of(tables: RunTables, iteration: int, name: str) -> Counter[str]:
    directory = tables.evaluation(iteration, name)
    found = Counter({"evaluation": _rows(directory)})
    if "correct" in next(tables.votes(iteration, name), {}):
        rows = tables.rows(directory, columns=("verdict", "correct"))
        kinds = Counter(outcome(row["verdict"], row["correct"]) for row in rows)
        found.update({f"evaluation {kind}": count for kind, count in kinds.items() if kind})
    return found
