"""What is recorded of an evidence run (`benchmarks/evidence.py`), and that the figures of the page are the records'."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from evidence import counted, main, percent, read  # type: ignore[import-not-found]

ROOT = Path(__file__).parents[3]


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
    trained = tmp_path / "iter_02" / "train_set"
    for folder, row in (
        (heldout, {"text": "[[A]]", "verdict": "A", "finish_reason": "stop"}),
        (trained, {"completion": [{"role": "assistant", "content": "Because. [[A]]"}]}),
    ):
        folder.mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist([row]), folder / "shard-00000.parquet")
    found = read(tmp_path)
    assert (found["heldout"]["2"]["bare_verdicts"], found["training_set"]["2"]["bare_verdicts"]) == (1.0, 0.0)


def test_an_estimate_tells_its_n_where_it_is_another() -> None:
    found = {"value": 0.5, "low": 0.25, "high": 0.75, "n": 8}
    assert percent(found, 8) == "50.0 [25.0, 75.0]"
    assert percent(found, 9) == "50.0 [25.0, 75.0] (n = 8)"
    assert percent({"value": None, "low": None, "high": None, "n": 0}, 9) == percent(None, 9) == ""


def test_runs_are_recorded_without_the_machines_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, results = tmp_path / "arm", tmp_path / "results"
    run.mkdir()
    results.mkdir()
    (run / "metrics.jsonl").write_text('{"extra": {"source": "/opt/data/eval/x.jsonl"}}\n', encoding="utf-8")
    told = {
        "settings": {"seed": 0, "runs": "/opt/runs", "pairs": {"from_run": "/opt/runs/a"}},
        "packages": {"ray": "2"},
    }
    (run / "run.json").write_text(json.dumps(told), encoding="utf-8")
    (run / "alarms.json").write_text('{"alarms": []}', encoding="utf-8")
    options = "--label x --revision abc --machine m --short /opt/data=DATA --short /opt/runs=RUNS"
    monkeypatch.setattr("sys.argv", ["evidence.py", "record", str(run), *options.split(), "--results", str(results)])
    main()
    written = {path.name: path.read_text(encoding="utf-8") for path in results.iterdir()}
    assert sorted(written) == ["evidence-arm-x.jsonl", "evidence-x-read.json", "evidence-x-settings.json"]
    assert not any("/opt" in text for text in written.values())
    settings = json.loads(written["evidence-x-settings.json"])
    assert settings["runs"]["arm"]["settings"] == {"seed": 0, "pairs": {"from_run": "RUNS/a"}}


@pytest.mark.parametrize("arm", ["neighbour-bare", "neighbour-agree"])
def test_the_pages_figures_are_the_records(
    arm: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    record = ROOT / "benchmarks" / "results" / f"evidence-{arm}-h200-rules.jsonl"
    monkeypatch.setattr("sys.argv", ["evidence.py", "table", str(record)])
    main()
    printed = {line.split(" | ")[0]: line for line in capsys.readouterr().out.splitlines()}
    page = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    last = printed["| right of pair and mirror, both orders"].removesuffix(" |").split(" | ")[-1]
    estimate = last.removesuffix(" (n = 129)")
    assert estimate in page
    assert f"| {printed['| accuracy'].removesuffix(' |').split(' | ')[-1]} |" in page
