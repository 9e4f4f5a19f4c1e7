"""Every row of a run, page by page, over HTTP."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from fastapi.testclient import TestClient

from ray_app.errors import InputError
from ray_app.findings import page
from ray_app.findings.paging import page_of, tables_of
from ray_app.findings.run_tables import RunTables
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
