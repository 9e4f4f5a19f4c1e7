"""From an id to all that came of it, and back: instruction → pair → judgments → training rows → checkpoint; and from
a verdict of an evaluation to what taught the judge that gave it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ray_app.base.schema import GIVEN_STRATEGY
from ray_app.errors import InputError
from ray_app.findings.facts import shown_text
from ray_app.findings.run_tables import Row, RunTables
from ray_app.run import storage
from ray_app.run.folder import RunFolder
from ray_app.train.data import row_id

SHOWN = 160  # characters of a text
OWN_PAIRS = re.compile(r"(/iter_\d+)?/pairs/?$")  # how the URI of a run's pairs ends, where it is not the run's


@dataclass
class Node:
    """One thing of a run, what is known of it, and what came of it."""

    title: str
    facts: Mapping[str, Any] = field(default_factory=dict)
    below: list[Node] = field(default_factory=list)


def trace(tables: RunTables, identity: str) -> list[Node]:
    """The lineage of an instruction's id, a pair's, a judgment's or training row's (PAIR/ORDER/SAMPLE…), or of a row of
    an evaluation set. Raises InputError where the run holds no such id.
    """
    row_id = identity.rsplit("/", 2)[0]  # of a verdict: ID/ORDER/SAMPLE, and an id of the user's may hold a slash
    found = [
        *_by_instruction(tables, identity),
        *_by_pair(tables, identity.split("/")[0]),
        *(node for name in dict.fromkeys((identity, row_id)) for node in _by_row(tables, name)),
    ]
    if not found:
        raise InputError(f"{tables.folder.uri} holds no instruction, pair, judgment or evaluation row {identity!r}")
    return found


def told(nodes: list[Node], depth: int = 0) -> str:
    """Nodes as indented lines."""
    lines = []
    for node in nodes:
        known = "  ".join(f"{name}={_short(value)}" for name, value in node.facts.items() if value not in (None, ""))
        lines.append("  " * depth + node.title + (f"  {known}" if known else ""))
        if node.below:
            lines.append(told(node.below, depth + 1))
    return "\n".join(lines)


def _by_instruction(tables: RunTables, identity: str) -> Iterator[Node]:
    """An instruction of the run's, or one that only pairs from elsewhere have."""
    found = list(_pairs(tables, "instruction_id", identity))
    row = _instructions(tables, {identity}).get(identity) or (_of_elsewhere(found[0][0]) if found else None)
    if row:
        yield _instruction(row, [_pair(tables, pair, iteration) for pair, iteration in found])


def _by_pair(tables: RunTables, identity: str) -> Iterator[Node]:
    found = list(_pairs(tables, "pair_id", identity))
    rows = _instructions(tables, {pair["instruction_id"] for pair, _ in found})
    for pair, iteration in found:
        row = rows.get(pair["instruction_id"]) or _of_elsewhere(pair)
        yield _instruction(row, [_pair(tables, pair, iteration)])


def _instructions(tables: RunTables, wanted: set[str]) -> dict[str, Row]:
    """{id: row} of the run's instructions; what it lacks, of the run whose pairs it took, if still there."""
    elsewhere = (tables.settings.get("pairs") or {}).get("from_run")
    found: dict[str, Row] = {}
    for folder in (tables.folder, *([RunFolder(OWN_PAIRS.sub("", elsewhere))] if elsewhere else [])):
        if wanted - found.keys():
            rows = tables.rows(folder.stage_dir("instructions"))
            found |= {row["instruction_id"]: row for row in rows if row["instruction_id"] in wanted - found.keys()}
    return found


def _by_row(tables: RunTables, identity: str) -> Iterator[Node]:
    """A row of an evaluation set: every judge's verdicts on it, and what taught that judge."""
    for judged in tables.phases():
        for line in judged.metrics():
            if line["stage"] != "evaluation":
                continue
            iteration, name = line["iteration"], line["extra"]["set"]
            votes = [_vote(row) for row in judged.votes(iteration, name) if row["id"] == identity]
            if votes:
                title = f"evaluation row {identity} of {name}, iteration {_named(judged, iteration)}"
                yield Node(title, {}, [*votes, _judge(judged, iteration)])


def _of_elsewhere(pair: Row) -> Row:
    """An instruction that is known from a pair alone."""
    names = ("instruction_id", "category", "complexity", "split")
    known = {name: pair[name] for name in names}
    return {**known, "text": pair["instruction"], "source": "pairs made elsewhere (pairs.source, pairs.from_run)"}


def _instruction(row: Row, below: list[Node]) -> Node:
    facts = {name: row[name] for name in ("category", "complexity", "split", "source")}
    return Node(f"instruction {row['instruction_id']}", {"text": shown_text(row["text"]), **facts}, below)


def _pairs(tables: RunTables, column: str, value: str) -> Iterator[tuple[Row, int | None]]:
    for iteration in (None, *tables.iterations()):
        for row in tables.rows(tables.folder.stage_dir("pairs", iteration)):
            if row[column] == value:
                yield row, iteration


def _pair(tables: RunTables, pair: Row, iteration: int | None) -> Node:
    names = ("split", "strategy", "generator", "modified_instruction", "chosen", "rejected", "mirror")
    facts = {"origin": _origin(tables, pair, iteration), **{name: shown_text(pair.get(name)) for name in names}}
    wanted = [i for i in tables.iterations() if i > 0 and iteration in (None, i)]
    below = [node for i in wanted for phase in tables.phases() for node in _of_pair(phase, pair["pair_id"], i)]
    return Node(f"pair {pair['pair_id']}", facts, below)


def _origin(tables: RunTables, pair: Row, iteration: int | None) -> str:
    """Where a pair of the run comes from: its own stage, another run's pairs, or a file."""
    elsewhere = (tables.settings.get("pairs") or {}).get("from_run")
    given = pair["strategy"] == GIVEN_STRATEGY
    if elsewhere and (not given or _holds(tables, elsewhere, pair["pair_id"])):
        return f"taken from the pairs of {elsewhere} (pairs.from_run)"
    if given:
        return f"from a file of pairs (pairs.source); its generator or file: {pair.get('generator')}"
    return "made once, pairs" if iteration is None else f"made for iteration {iteration}, iter_{iteration:02d}/pairs"


def _holds(tables: RunTables, elsewhere: str, identity: str) -> bool:
    """Whether the pairs of another run (its folder, or that of its pairs) hold this one, as long as they are there."""
    places = (storage.join(elsewhere, "pairs"), elsewhere)
    return any(next(tables.rows_of(place, "pair_id", {identity}), None) for place in places)


def _of_pair(tables: RunTables, identity: str, iteration: int) -> Iterator[Node]:
    """What an iteration made of a pair: its judgments, those trained on, and the checkpoint that learned from them."""
    judged = [row for row in tables.judgments(iteration) if row["pair_id"] == identity]
    trained = [row for row in tables.train_set(iteration) if row["pair_id"] == identity]
    for row in judged:
        names = ("verdict", "correct", "kept", "score", "seed", "judge", "text")
        place = row.get("order") or row.get("side")
        yield Node(
            f"judgment, iteration {_named(tables, iteration)}: {place}/{row['sample']}",
            {n: row[n] for n in names if n in row},
        )
    if trained:
        rows = [Node(f"training row {row_id(row)}") for row in trained]
        yield Node(
            f"training set, iteration {_named(tables, iteration)}",
            {"rows of this pair": len(trained)},
            [*rows, _checkpoint(tables, iteration)],
        )


def _vote(row: Row) -> Node:
    names = ("verdict", "score", "correct", "seed", "judge", "text")
    place = row.get("order") or row.get("side")
    return Node(f"verdict: {place}/{row['sample']}", {name: row[name] for name in names if name in row})


def _judge(tables: RunTables, iteration: int) -> Node:
    """What taught the judge of an iteration."""
    if iteration == 0:
        return Node("judge: the seed model, untrained", {"model": tables.settings.get("judge", {}).get("model")})
    return Node(
        f"judge: iteration {_named(tables, iteration)}",
        {},
        [_checkpoint(tables, iteration), *_training_set(tables, iteration)],
    )


def _training_set(tables: RunTables, iteration: int) -> Iterator[Node]:
    for line in tables.metrics():
        if line["stage"] == "train_set" and line["iteration"] == iteration:
            names = ("rows", "pairs", "keep_rate", "pass_rate", "trained_by_letter")
            facts = {name: line["extra"].get(name) for name in names}
            place = f"{tables.folder.name_of(iteration)}/train_set"
            yield Node(f"its training set: {place}", {**facts, "judged by": _judged_by(tables, iteration)})


def _judged_by(tables: RunTables, iteration: int) -> str:
    """Who judged the pairs of a training set."""
    if tables.folder.phase:
        return f"the SFT checkpoint of iteration {iteration}"
    if iteration == 1:
        first = tables.settings.get("first_judge") or tables.settings.get("judge", {})
        return str(first.get("model"))
    return f"iteration {_named(tables.phases()[-1], iteration - 1)}"


def _named(tables: RunTables, iteration: int) -> str:
    """An iteration, with the name of its second training where the tables are that one's."""
    return f"{iteration}, {tables.folder.phase}" if tables.folder.phase else str(iteration)


def _checkpoint(tables: RunTables, iteration: int) -> Node:
    facts: dict[str, Any] = {}
    for line in tables.metrics():
        if line["stage"] == "training" and line["iteration"] == iteration:
            names = ("started_from", "steps", "epochs", "first_loss", "last_loss", "selected_step")
            facts = {name: line["extra"].get(name) for name in names}
    train = tables.settings.get("train", {})
    return Node(
        f"checkpoint {tables.folder.name_of(iteration)}/checkpoint",
        {**facts, "recipe": train.get("recipe"), "lr": train.get("lr")},
    )


def _short(value: Any) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"
