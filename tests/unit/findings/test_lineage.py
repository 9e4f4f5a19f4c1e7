"""From an id to all that came of it, and back."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from ray_app.errors import InputError
from ray_app.findings.lineage import told, trace
from ray_app.findings.run_tables import RunTables

Runs = Callable[[str], str]


@pytest.fixture
def tables(runs: Runs) -> RunTables:
    return RunTables(runs("pairwise"))


def test_a_pair_leads_to_the_checkpoint(tables: RunTables) -> None:
    row = next(iter(tables.train_set(1)))
    by_pair = told(trace(tables, row["pair_id"]))
    lines = [line.strip().split("  ")[0] for line in by_pair.splitlines()]
    assert lines[0].startswith("instruction ")
    assert lines[1] == f"pair {row['pair_id']}"
    assert f"judgment, iteration 1: {row['order']}/{row['sample']}" in lines
    assert f"training row {row['pair_id']}/{row['order']}/{row['sample']}/1" in lines
    assert "checkpoint iter_01/checkpoint" in lines
    assert "seed=" in by_pair
    assert told(trace(tables, f"{row['pair_id']}/{row['order']}/{row['sample']}")) == by_pair


def test_an_instruction_leads_to_its_pairs(tables: RunTables) -> None:
    pair = next(iter(tables.pairs()))
    (node,) = trace(tables, pair["instruction_id"])
    assert f"pair {pair['pair_id']}" in [below.title for below in node.below]


def test_a_verdict_leads_back_to_what_taught_its_judge(tables: RunTables) -> None:
    vote = next(iter(tables.votes(1, "validation")))
    text = told(trace(tables, vote["id"]))
    assert "judge: the seed model, untrained" in text
    assert "its training set: iter_01/train_set" in text
    assert "judged by=" in text


def test_a_held_out_pair_has_its_verdicts_too(tables: RunTables) -> None:
    vote = next(iter(tables.votes(1, "heldout")))
    text = told(trace(tables, f"{vote['id']}/{vote['order']}/{vote['sample']}"))
    assert f"pair {vote['id']}" in text
    assert f"evaluation row {vote['id']} of heldout, iteration 1" in text


def test_pairs_that_were_made_elsewhere_lead_on_too(tables: RunTables, tmp_path: Path) -> None:
    """Of a run that took another one's pairs: the instruction is that run's, as long as it is there."""
    pair = next(iter(tables.pairs()))
    run = tmp_path / "taking"
    shutil.copytree(Path(tables.folder.uri), run, ignore=shutil.ignore_patterns("instructions", "checkpoint"))
    described = json.loads((run / "run.json").read_text())
    for elsewhere, title, told_of in (
        (str(tables.folder.uri), f"instruction {pair['instruction_id']}", "text="),
        (str(tmp_path / "gone"), f"instruction {pair['instruction_id']}", "source=pairs made elsewhere"),
    ):
        described["settings"].setdefault("pairs", {})["from_run"] = elsewhere
        (run / "run.json").write_text(json.dumps(described))
        nodes = trace(RunTables(str(run)), pair["instruction_id"])
        assert nodes[0].title == title
        assert told_of in told(nodes)
        assert f"origin=taken from the pairs of {elsewhere} (pairs.from_run)" in told(nodes)
        assert f"pair {pair['pair_id']}" in [below.title for below in nodes[0].below]
        assert f"pair {pair['pair_id']}" in told(trace(RunTables(str(run)), pair["pair_id"]))


def test_a_pair_of_an_iteration_names_it(runs: Runs) -> None:
    """Where pairs are made anew in each iteration; of a run that took these, their instruction is found too."""
    tables = RunTables(runs("refresh"))
    pair = next(iter(tables.pairs(1)))
    assert "origin=made for iteration 1, iter_01/pairs" in told(trace(tables, pair["pair_id"]))
    first = RunTables(runs("pairwise"))
    assert "origin=made once, pairs" in told(trace(first, next(iter(first.pairs()))["pair_id"]))


def test_pairs_of_another_runs_iteration_have_their_instruction(runs: Runs, tmp_path: Path) -> None:
    made = RunTables(runs("refresh"))
    pair = next(iter(made.pairs(1)))
    run = tmp_path / "taking"
    shutil.copytree(Path(made.folder.stage_dir("pairs", 1)), run / "pairs")
    shutil.copy(Path(runs("refresh")) / "metrics.jsonl", run)
    elsewhere = f"{made.folder.uri}/iter_01/pairs"
    (run / "run.json").write_text(json.dumps({"settings": {"pairs": {"from_run": elsewhere}}}))
    lineage = told(trace(RunTables(str(run)), pair["pair_id"]))
    assert f"origin=taken from the pairs of {elsewhere}" in lineage
    assert "source=pairs made elsewhere" not in lineage


def test_an_unknown_id_is_named(tables: RunTables) -> None:
    with pytest.raises(InputError, match="holds no instruction, pair, judgment or evaluation row 'nothing'"):
        trace(tables, "nothing")
