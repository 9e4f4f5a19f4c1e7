"""Every row of a run, page by page, over HTTP."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fastapi.testclient import TestClient

from ray_app.errors import InputError
from ray_app.findings import page
from ray_app.findings.paging import page_of, tables_of
from ray_app.findings.run_tables import RunTables
from ray_app.findings.samples import LONGEST
from ray_app.findings.server import application

Runs = Callable[[str], str]


@pytest.fixture
def tables(runs: Runs) -> RunTables:
    return RunTables(runs("pairwise"))


@pytest.fixture
def client(tables: RunTables) -> TestClient:
    return TestClient(application(tables, lambda names: page.render(tables, [], {}, served=names)))


def test_pages_together_are_the_table(tables: RunTables) -> None:
    whole = [row["pair_id"] for row in tables.pairs()]
    pages = [page_of(tables, "pairs", offset, 7) for offset in range(0, len(whole) + 7, 7)]
    assert [sample["id"] for rows in pages for sample in rows] == whole
    assert pages[-1] == []


def test_every_table_has_pages(tables: RunTables) -> None:
    names = tables_of(tables)
    assert {"instructions", "pairs", "judgments 1", "train_set 1", "evaluation 1 validation"} <= set(names)
    for name in names:
        assert page_of(tables, name, 0, 2)


def test_best_of_sets_have_letters_and_ratings(tables: RunTables) -> None:
    """By letter all responses are shown; of a rating the one that it is of."""
    assert {"evaluation 1 rewardbench2", "ratings 1 rewardbench2"} <= set(tables_of(tables))
    place = Path(tables.evaluation(1, "rewardbench2"))
    votes = pq.read_table(next(place.glob("shard-*.parquet"))).to_pylist()
    units = {row["id"]: row["responses"] for row in pq.read_table(place / "units").to_pylist()}
    for vote, sample in zip(votes, page_of(tables, "evaluation 1 rewardbench2", 0, 50), strict=True):
        fields = dict(sample["fields"])
        assert [fields[f"response {letter}"] for letter in "ABCD"] == units[vote["id"]]
        assert fields["verdict"] == (vote["verdict"] or "unparsed")
    scores = pq.read_table(next((place / "ratings").glob("shard-*.parquet"))).to_pylist()
    units = {row["id"]: row["responses"] for row in pq.read_table(place / "ratings" / "units").to_pylist()}
    for score, sample in zip(scores, page_of(tables, "ratings 1 rewardbench2", 0, 50), strict=True):
        fields = dict(sample["fields"])
        assert fields[f"response {score['side']}"] == units[score["id"]][int(score["side"])]
        assert fields["score"] == ("unparsed" if score["score"] is None else str(score["score"]))


def test_a_pointwise_judge_has_pages(runs: Runs) -> None:
    tables = RunTables(runs("pointwise"))
    names = [name for name in tables_of(tables) if name.startswith(("evaluation 1", "ratings 1"))]
    assert sorted(names) == ["evaluation 1 heldout", "evaluation 1 validation", "ratings 1 rewardbench2"]
    for name in names:
        (first,) = page_of(tables, name, 0, 1)
        assert {"instruction", "score", "judgment"} <= {field for field, _ in first["fields"]}
        assert any(field.startswith("response ") for field, _ in first["fields"])


def test_lost_rows_have_pages_with_their_instructions(tables: RunTables, tmp_path: Path) -> None:
    assert not [name for name in tables_of(tables) if "lost" in name]
    known = next(tables.rows(tables.folder.stage_dir("instructions")))
    run = shutil.copytree(tables.folder.uri, tmp_path / "lost")
    row = {"id": known["instruction_id"], "stage": "pairs", "reason": "cut_off_chosen", "detail": "{'chosen': 'a\\n'}"}
    pq.write_table(pa.Table.from_pylist([row]), run / "pairs" / "quarantine-00000.parquet")
    copy = RunTables(str(run))
    assert "lost_pairs" in tables_of(copy)
    (found,) = page_of(copy, "lost_pairs", 0, 5, "cut_off")
    assert dict(found["fields"])["instruction"] == known["text"]
    assert dict(found["fields"])["chosen"] == "a\n"
    assert page_of(copy, "lost_pairs", 1, 5) == []


def test_a_search_sees_what_is_cut_off(tables: RunTables, monkeypatch: pytest.MonkeyPatch) -> None:
    """Long texts are shown in part; what was found in the rest is shown with its surroundings."""
    text = "x" * (LONGEST + 500) + " The Needle is here " + "y" * 500
    long = {**next(tables.pairs()), "chosen": text}
    monkeypatch.setattr(RunTables, "rows", lambda *_, **__: iter([long]))
    (found,) = page_of(tables, "pairs", 0, 5, "the needle")
    fields = dict(found["fields"])
    assert fields["chosen"].startswith("x" * LONGEST)
    assert "more characters" in fields["chosen"]
    assert len(fields["chosen"]) < LONGEST + 50
    assert "The Needle is here" in fields[f"chosen, from character {LONGEST + 501}"]
    assert page_of(tables, "pairs", 0, 5, "another needle") == []


def test_a_search_goes_through_all_rows(tables: RunTables) -> None:
    last = list(tables.pairs())[-1]
    (found,) = page_of(tables, "pairs", 0, 5, last["pair_id"].upper())
    assert found["id"] == last["pair_id"]
    assert page_of(tables, "pairs", 0, 5, "no row holds this") == []


@pytest.mark.parametrize(
    ("table", "offset", "limit"), [("pairs", -1, 5), ("pairs", 0, 0), ("pairs", 0, 10_000), ("../x", 0, 5)]
)
def test_a_page_that_cannot_be_is_named(
    tables: RunTables, client: TestClient, table: str, offset: int, limit: int
) -> None:
    with pytest.raises(InputError):
        page_of(tables, table, offset, limit)
    assert client.get("/rows", params={"table": table, "offset": offset, "limit": limit}).status_code == 422


def test_the_page_and_its_rows_over_http(tables: RunTables, client: TestClient) -> None:
    text = client.get("/").text
    found = re.search(r'id="data">(.*?)</script>', text, re.DOTALL)
    assert found
    data: dict[str, Any] = json.loads(found.group(1))
    assert data["served"] == tables_of(tables)
    rows = client.get("/rows", params={"table": "pairs", "limit": 3}).json()["rows"]
    assert rows == page_of(tables, "pairs", 0, 3)
    answer = client.get("/rows", params={"table": "judgments 1", "limit": 3}).json()
    assert set(answer["pairs"]) == {row["pair"][0] for row in answer["rows"]}
    chosen = {row["pair_id"]: row["chosen"] for row in tables.pairs()}
    assert all(dict(fields)["chosen"] == chosen[pair] for pair, fields in answer["pairs"].items())
