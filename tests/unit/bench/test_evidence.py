"""What is recorded of an evidence run (`benchmarks/evidence.py`), and that the figures of the page are the records'."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from evidence import HELDOUT, counted, main, percent, read, shortened  # type: ignore[import-not-found]

from ray_app.findings.run_tables import RunTables

ROOT = Path(__file__).parents[3]
RESULTS = ROOT / "benchmarks" / "results"


def write_run(folder: Path, *stages: tuple[str, int, str | None]) -> None:
    """A run with two phases that has recorded (stage, iteration, set)."""
    described = {"settings": {"then_dpo": {"train": {}}}, "packages": {}}
    (folder / "run.json").write_text(json.dumps(described), encoding="utf-8")
    lines = [
        {"stage": stage, "iteration": iteration, "rows_out": 1, "extra": {"set": name}}
        for stage, iteration, name in stages
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def test_what_judgments_say_is_counted() -> None:
    judgments = [
        ("The first response is better. [[B]]", "B", "stop"),
        ("The first response is better. [[A]]", "A", "stop"),
        ("[[A]]", "A", "stop"),
        ("The first response", None, "length"),
        ("Who knows", None, "stop"),
    ]
    found = counted(iter(judgments))
    assert (found["judgments"], found["bare_verdicts"]) == (5, 0.2)
    assert (found["call_a_response_better"], found["then_name_the_other"]) == (2, 1)
    assert (found["commonest_beginning"], found["commonest_beginning_share"]) == ("the first response is better", 0.4)
    assert (found["without_verdict"], found["of_these_cut_off"]) == (2, 1)
    assert counted(iter([])) is None


def test_tables_are_read_by_iteration(tmp_path: Path) -> None:
    heldout = tmp_path / "iter_02" / "evaluation" / "heldout"
    trained, preferred = tmp_path / "iter_02" / "train_set", tmp_path / "iter_02" / "dpo" / "train_set"
    write_run(tmp_path, ("evaluation", 2, "heldout"), ("train_set", 2, None), ("dpo_train_set", 2, None))
    for folder, row in (
        (heldout, {"text": "[[A]]", "verdict": "A", "finish_reason": "stop"}),
        (trained, {"completion": [{"role": "assistant", "content": "Because. [[A]]"}]}),
        (preferred, {"chosen": [{"role": "assistant", "content": "As A is. [[A]]"}]}),
    ):
        folder.mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist([row]), folder / "shard-00000.parquet")
    found = read(RunTables(str(tmp_path)))
    assert (found["heldout"]["2"]["bare_verdicts"], found["training_set"]["2"]["bare_verdicts"]) == (1.0, 0.0)
    assert found["training_set"]["2 DPO"]["explanation_words_median"] == 3


def test_an_estimate_tells_its_n_where_it_is_another() -> None:
    found = {"value": 0.5, "low": 0.25, "high": 0.75, "n": 8}
    assert percent(found, 8) == "50.0 [25.0, 75.0]"
    assert percent(found, 9) == "50.0 [25.0, 75.0] (n = 8)"
    assert percent({"value": None, "low": None, "high": None, "n": 0}, 9) == percent(None, 9) == ""


def test_runs_are_recorded_without_the_machines_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, results = tmp_path / "arm", tmp_path / "results"
    run.mkdir()
    results.mkdir()
    line = {"stage": "pairs", "extra": {"source": "/m/data/eval/x.jsonl"}}
    (run / "metrics.jsonl").write_text(json.dumps(line) + "\n", encoding="utf-8")
    told = {
        "settings": {"seed": 0, "runs": "/m/runs", "pairs": {"from_run": "/m/runs/a"}},
        "packages": {"ray": "2"},
    }
    (run / "run.json").write_text(json.dumps(told), encoding="utf-8")
    (run / "alarms.json").write_text('{"alarms": []}', encoding="utf-8")
    options = "--label x --revision abc --machine m --short /m/data=DATA --short /m/runs=RUNS"
    monkeypatch.setattr("sys.argv", ["evidence.py", "record", str(run), *options.split(), "--results", str(results)])
    main()
    written = {path.name: path.read_text(encoding="utf-8") for path in results.iterdir()}
    assert sorted(written) == ["evidence-arm-x.jsonl", "evidence-x-read.json", "evidence-x-settings.json"]
    assert not any("/m/" in text for text in written.values())
    settings = json.loads(written["evidence-x-settings.json"])
    assert settings["runs"]["arm"]["settings"] == {"seed": 0, "pairs": {"from_run": "RUNS/a"}}


def test_a_run_without_its_tables_is_not_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_run(tmp_path, ("dpo_evaluation", 1, "heldout"))
    options = ["--label", "x", "--revision", "r", "--machine", "m", "--results", str(tmp_path)]
    monkeypatch.setattr("sys.argv", ["evidence.py", "record", str(tmp_path), *options])
    with pytest.raises(SystemExit, match="the shards of iteration 1, DPO, heldout"):
        main()
    assert not list(tmp_path.glob("evidence-*"))


def test_paths_are_whole_names_of_folders() -> None:
    short = ["/m/runs=RUNS", "/m/runs-2=OTHER"]
    assert shortened('"/m/runs/a" "/m/runs-2/b" "/m/runs-3/c"', short) == '"RUNS/a" "OTHER/b" "/m/runs-3/c"'


def printed(record: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> dict[str, list[str]]:
    """The first table of a record: {row: its columns}."""
    monkeypatch.setattr("sys.argv", ["evidence.py", "table", str(RESULTS / record)])
    main()
    text = capsys.readouterr().out
    lines = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("|")]
    return {name: columns for name, *columns in reversed(lines)}


RULES = "## Verdicts alone, and explanations that must agree"
SEEDS, COMPARED = "## Three seeds", "### The judge before, and all N"
BARE = "neighbour-bare-h200-rules"
SEED_1, SEED_2, PREVIOUS, ALL = (f"neighbour-bare.{name}-h200-seeds" for name in ("seed1", "seed2", "previous", "all"))
COLUMNS = {  # of each section's table: (record, iteration)
    RULES: [
        *((BARE, iteration) for iteration in (1, 2, 3)),
        *(("neighbour-agree-h200-rules", iteration) for iteration in (1, 2)),
        *(("neighbour-h200", iteration) for iteration in (2, 4)),
    ],
    SEEDS: [(name, iteration) for name in (BARE, SEED_1, SEED_2) for iteration in (2, 3)],
    COMPARED: [(SEED_1, 1), (SEED_1, 2), (PREVIOUS, 1), (PREVIOUS, 2), (SEED_2, 1), (ALL, 1)],
}


def section_of(heading: str) -> str:
    """What stands in docs/results.md below a heading."""
    return (ROOT / "docs" / "results.md").read_text(encoding="utf-8").split(heading)[1].split("\n##")[0]


@pytest.mark.parametrize("heading", COLUMNS)
def test_the_figures_of_the_page_are_the_records(
    heading: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every estimate with a decimal in the page's tables of held-out pairs, its bounds and its n, column by column."""
    records = {name: printed(f"evidence-{name}.jsonl", monkeypatch, capsys) for name, _ in COLUMNS[heading]}
    lines = section_of(heading).splitlines()
    rows = {line.split(" | ")[0].strip("| *"): line for line in lines if line.startswith("| ")}
    compared = 0
    for label in HELDOUT.values():
        line = next((line for name, line in rows.items() if name.startswith(label)), None)
        if line is None:
            continue
        columns = [cell.strip(" *") for cell in line.strip("| ").split(" | ")[1:]]
        found = [records[name][label][iteration] for name, iteration in COLUMNS[heading]]
        for cell, recorded in zip(columns, found, strict=True):
            if number := re.match(r"[+-]?\d+\.\d", cell):
                assert float(number[0]) == float(recorded.split()[0]), (label, cell, recorded)
                compared += 1
            if bounds := re.search(r"\[.+?\]", cell):
                assert bounds[0].replace("100]", "100.0]") in recorded, (label, cell, recorded)
            if of := re.search(r"\(n = \d+\)", cell):
                assert of[0] in recorded, (label, cell, recorded)
    assert compared > 40


@pytest.mark.parametrize("heading", [SEEDS, COMPARED])
def test_what_was_drawn_and_trained_on_stands_in_the_page(heading: str) -> None:
    section = section_of(heading)
    drawn, tokens, trained = [], [], []
    for name, iteration in COLUMNS[heading]:
        lines = [json.loads(line) for line in (RESULTS / f"evidence-{name}.jsonl").read_text().splitlines()]
        of = {line["stage"]: line for line in lines if line["iteration"] == iteration}
        drawn.append(f"{of['judgments']['rows_out'] / 1000:.1f}")
        tokens.append(f"{of['judgments']['completion_tokens'] / 1000:,.0f}")
        trained.append(f"{of['train_set']['rows_out']:,}")
    assert f"| judgments drawn, thousands | {' | '.join(drawn)} |" in section
    assert f"| new tokens, thousands | {' | '.join(tokens)} |" in section
    assert f"| rows trained on | {' | '.join(trained)} |" in section
