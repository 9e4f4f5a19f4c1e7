"""report.html in Chromium: no error in its console, readable by keyboard, wide and narrow, light and dark.

`make browser` runs it; it needs Playwright and a Chromium on the path, and is no part of `make test`.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import recorded
from clusters import free_ports
from playwright.sync_api import Error, sync_playwright

from ray_app.loop.reporting import write_report

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page of the recorded run in pairwise mode."""
    where = tmp_path_factory.mktemp("browser")
    with tarfile.open(recorded.FOLDERS) as packed:
        packed.extractall(where, filter="data")
    return Path(write_report(str(where / "runs" / "pairwise"))).resolve().as_uri()


@pytest.fixture
def served(tmp_path: Path) -> Iterator[str]:
    """The recorded run behind HTTP; in one of its pairs a response is so long that the page shows it in part."""
    with tarfile.open(recorded.FOLDERS) as packed:
        packed.extractall(tmp_path, filter="data")
    run = tmp_path / "runs" / "pairwise"
    (file,) = (run / "pairs").glob("shard-*.parquet")
    rows = pq.read_table(file)
    texts = rows.column("chosen").to_pylist()
    texts[3] = "x " * 3000 + "A Needle in it." + " y" * 3000
    pq.write_table(rows.set_column(rows.schema.get_field_index("chosen"), "chosen", pa.array(texts)), file)
    (port,) = free_ports(1)
    command = [sys.executable, "-m", "ray_app.report", str(run), "--serve", "--port", str(port)]
    server = subprocess.Popen(command, cwd=recorded.ROOT, stdout=subprocess.PIPE, text=True)
    assert server.stdout
    assert server.stdout.readline().startswith("report of pairwise")
    yield f"http://127.0.0.1:{port}"
    server.terminate()
    server.wait(60)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.fail("no Chromium on the path: make browser fetches it")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(params=[(1280, "light"), (1280, "dark"), (420, "light"), (420, "dark")], ids=str)
def page(browser: Any, report: str, request: pytest.FixtureRequest) -> Iterator[Any]:
    """The open page with its figures drawn. Fails a test that leaves an error in the console, or fetches anything."""
    width, scheme = request.param
    opened = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    faults: list[str] = []
    opened.on("console", lambda said: faults.append(said.text) if said.type in ("error", "warning") else None)
    opened.on("pageerror", lambda fault: faults.append(str(fault)))
    opened.on(
        "request", lambda asked: None if asked.url.startswith(("file:", "data:", "blob:")) else faults.append(asked.url)
    )
    opened.goto(report)
    opened.wait_for_selector("body[data-ready=yes]", timeout=60_000)
    yield opened
    opened.close()
    assert faults == []


def test_it_fits_and_its_figures_are_drawn(page: Any) -> None:
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    figures = page.locator("figure")
    assert figures.count() > 5
    assert page.locator("figure .main-svg").count() >= figures.count()


def test_samples_are_read_and_marked_by_keyboard(page: Any) -> None:
    page.keyboard.press("j")
    second = page.locator("#sample h3").inner_text()
    page.keyboard.press("g")
    assert page.locator("#sample button[aria-pressed=true]").inner_text() == "good"
    page.keyboard.press("k")
    assert page.locator("#sample h3").inner_text() != second
    page.keyboard.press("/")
    page.keyboard.type(second.split()[-1])
    page.keyboard.press("Escape")
    assert page.locator("#sample h3").inner_text() == second
    with page.expect_download() as begun:
        page.click("#export")
    (mark,) = [json.loads(line) for line in Path(begun.value.path()).read_text().splitlines()]
    kind, identity = second.rsplit(" ", 1)
    assert mark == {"run": "pairwise", "kind": kind, "id": identity, "mark": "good"}


def test_a_newcomers_questions_are_two_clicks_away(page: Any) -> None:
    """What it learned from, with a judgment's own pair; what was left out; where the time went; whether to trust it."""
    page.click('nav a[href="#samples"]')
    assert "training rows from" in page.locator("#samples").inner_text()
    page.click('[data-kind="training row"]')
    assert page.locator("#sample h3").inner_text().startswith("training row ")
    page.click('[data-kind="judgment"]')
    names = page.locator("#sample dt").all_inner_texts()
    assert names[:3] == ["judgment", "verdict", "instruction"]
    assert {name.split(",")[0] for name in names[3:5]} == {"shown first (A)", "shown second (B)"}
    page.click('nav a[href="#lost"]')
    assert "never judged right" in page.locator("#lost").inner_text()
    page.click('nav a[href="#time"]')
    assert page.locator("#time figure").count() == 2
    top = page.locator("#time h2").bounding_box()["y"]
    bar = page.locator("nav").bounding_box()
    assert top >= 0
    assert bar["y"] + bar["height"] <= top or bar["y"] < 0, "the bar of links hides no heading"
    page.click('nav a[href="#alarms"]')
    page.click("#alarms [data-find] >> nth=0")
    assert "alarm: " in page.locator("#sample").inner_text()


def test_a_served_page_loads_and_searches_every_table(browser: Any, served: str) -> None:
    page = browser.new_page()
    faults: list[str] = []
    page.on("pageerror", lambda fault: faults.append(str(fault)))
    for _ in range(100):  # it says its address, then listens
        with contextlib.suppress(Error):
            page.goto(served)
            break
        page.wait_for_timeout(100)
    page.wait_for_selector("body[data-ready=yes]", timeout=60_000)
    page.select_option("#table", "ratings 1 rewardbench2")
    page.click("#more")
    page.wait_for_function("document.getElementById('count').textContent.includes('13 came')")
    assert "score" in page.locator("#sample dt").all_inner_texts()
    page.select_option("#table", "judgments 1")
    page.click("#more")
    page.wait_for_function("document.getElementById('count').textContent.includes('37 came')")
    assert "instruction" in page.locator("#sample dt").all_inner_texts()
    page.select_option("#table", "pairs")
    page.fill("#search", "a needle IN it")
    page.click("#more")
    page.wait_for_function("document.getElementById('count').textContent.includes('1 came')")
    assert "A Needle in it." in page.locator("#sample").inner_text()
    page.close()
    assert faults == []


def test_a_kind_is_picked_and_the_parts_are_one_click_away(page: Any) -> None:
    page.select_option("#kind", "judgment")
    assert page.locator("#sample h3").inner_text().startswith("judgment ")
    for link in page.locator("nav a").all():
        link.click()
        target = link.get_attribute("href").removeprefix("#")
        assert page.evaluate(f"location.hash === '#{target}' && !!document.getElementById('{target}')")
