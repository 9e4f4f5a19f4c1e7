"""metrics.jsonl is derived: never double, never lost, always of the declared schema."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa
import pytest
from run_records import print_of, record_of

from ray_app.run import metrics_log, storage
from ray_app.run.folder import RunFolder, commit


def file_lines(place: str) -> list[dict[str, Any]]:
    fs, path = storage.filesystem(storage.join(place, "metrics.jsonl"))
    return [json.loads(line) for line in fs.cat_file(path).decode().splitlines()]


def make_run(place: str) -> list[str]:
    folder = RunFolder(place)
    wanted = [
        (folder.stage_dir("pairs"), "pairs", None, {}),
        (folder.stage_dir("judgments", 1), "judgments", 1, {"unparsed_rate": 0.5}),
        (
            folder.join(folder.stage_dir("evaluation", 1), "test"),
            "evaluation",
            1,
            {"set": "test", "headline": {"n": 3}},
        ),
    ]
    for second, (directory, stage, iteration, extra) in enumerate(wanted):
        finished = f"2026-01-01T00:00:0{second}+00:00"
        commit(directory, record_of(print_of(stage), iteration, extra=extra, finished=finished))
    return [directory for directory, *_ in wanted]


def test_one_line_a_committed_stage_in_order_however_often(place: str) -> None:
    directories = make_run(place)
    for _ in range(2):
        lines = metrics_log.rebuild(place, [*directories, storage.join(place, "iter_02/judgments")])
        assert [line["stage"] for line in lines] == ["pairs", "judgments", "evaluation"]
        assert file_lines(place) == lines
    assert lines[0]["quarantined"] == {"empty": 1}
    assert lines[2]["extra"] == {"set": "test", "headline": {"n": 3}}


def test_stages_that_this_call_does_not_ask_for_stay_in_the_file(place: str) -> None:
    directories = make_run(place)
    lines = metrics_log.rebuild(place, directories[:1])
    assert [line["stage"] for line in lines] == ["pairs"]
    assert [line["stage"] for line in file_lines(place)] == ["pairs", "judgments", "evaluation"]


def test_a_lost_file_comes_back(place: str) -> None:
    directories = make_run(place)
    first = metrics_log.rebuild(place, directories)
    storage.remove(storage.join(place, "metrics.jsonl"))
    assert metrics_log.rebuild(place, directories) == first


def test_the_table_has_the_declared_schema(place: str) -> None:
    table = metrics_log.as_table(metrics_log.rebuild(place, make_run(place)))
    assert table.schema == metrics_log.METRICS
    assert table.column("quarantined")[0].as_py() == [("empty", 1)]
    assert json.loads(table.column("extra")[2].as_py())["headline"] == {"n": 3}


def test_a_value_of_another_type_is_refused(place: str) -> None:
    line = metrics_log.rebuild(place, make_run(place))[0]
    with pytest.raises(pa.ArrowException):
        metrics_log.as_table([{**line, "rows_in": "ten"}])
